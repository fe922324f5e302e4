# Tries, once for every sandbox that is made, what a program must not be able to do. Only if all of it fails are others run.
import os
import sys

fallen = []


def must_fail(what, attempt):
    try:
        attempt()
    except OSError:
        return
    fallen.append(what)


def fork():
    if os.fork() == 0:
        os._exit(0)


def network():
    import socket

    socket.socket()


if os.getpid() != 1:
    fallen.append("a PID namespace of its own")
if os.getuid() == 0 or os.geteuid() == 0:
    fallen.append("an unprivileged user")
must_fail("no files of the host", lambda: os.stat("/etc"))
must_fail("no /proc", lambda: os.listdir("/proc"))
must_fail("a root that cannot be written to", lambda: os.mkdir("/made"))
must_fail("the interpreter's files, read-only", lambda: open(os.__file__, "a"))
must_fail("the limit on processes", fork)
must_fail("no network", network)
must_fail("no mounts", lambda: os.chroot("/tmp"))
must_fail("no other user", lambda: os.setuid(0))
must_fail("the limit on disk", lambda: os.truncate("/tmp/large", os.write(os.open("/tmp/large", os.O_CREAT | os.O_WRONLY), b"x") << 50))
sys.stdout.write("these do not stand: " + ", ".join(fallen) if fallen else "all walls stand")
