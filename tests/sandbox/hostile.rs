//! Programs that do what they must not: each is contained, none has passed, and the host is as it was before.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use qstar::sandbox::{Limits, Outcome, Program, Verdict};

use super::{program, sandbox, script};

/// What every hostile program is judged by. None of them computes this.
const TESTS: [&str; 2] = ["assert f(20) == 41, 'not 41'", "assert f(1) == 3"];

/// Puts `attack` into `f` and in front of it: it is tried when the program is loaded and when it is called.
fn both(name: &'static str, attack: &str) -> [(&'static str, Program); 2] {
    let indented: String = attack.lines().map(|line| format!("    {line}\n")).collect();
    [
        (name, program(&format!("{attack}\ndef f(x):\n    return 0\n"), &TESTS)),
        (name, program(&format!("def f(x):\n{indented}    return 0\n"), &TESTS)),
    ]
}

fn limits() -> Limits {
    Limits { cpu_seconds: 0.5, seconds: 1.0, memory: 256 << 20, disk: 4 << 20, ..Limits::default() }
}

/// Attacks on the verdict.
const FORGERIES: [(&str, &str); 25] = [
    ("exit before the tests", "import os\nos._exit(0)"),
    ("sys.exit before the tests", "import sys\nsys.exit(0)"),
    ("SystemExit", "raise SystemExit(0)"),
    (
        "exit in a thread",
        "import threading, os\nthreading.Thread(target=lambda: os._exit(0)).start()\nimport time\ntime.sleep(0.3)",
    ),
    ("a result line", "print('passed')\nprint('[\"passed\", \"\"]')\nprint('all walls stand')\nimport os\nos._exit(0)"),
    (
        "result frames on every descriptor",
        "import os, struct\nfor fd in range(1, 64):\n    for kind in (b'V[\"passed\", \"\"]', b'[\"passed\", \"\"]', b'true'):\n        try:\n            os.write(fd, struct.pack('<I', len(kind)) + kind)\n        except OSError:\n            pass\nos._exit(0)",
    ),
    (
        "replies ahead of the calls",
        "import os, struct\nfor _ in range(100):\n    os.write(4, struct.pack('<I', 4) + b'null')",
    ),
    (
        "replies that are not in the agreed form",
        "import os, struct\nfor text in (b'[', b'{\"a\": 1}', b'[\"zz\"]', b'[]', b'[\"h\"]', b'[\"m\", \"os\", \"system\", [\"t\", \"true\"]]', b'[\"!\"]', b'\\xff'):\n    os.write(4, struct.pack('<I', len(text)) + text)",
    ),
    ("a frame without an end", "import os, struct\nos.write(4, struct.pack('<I', 1000) + b'x')\nos.close(4)"),
    ("a frame of 4 GB", "import os, struct\nos.write(4, struct.pack('<I', 0xffffffff))"),
    ("closing every descriptor", "import os\nos.closerange(0, 64)"),
    ("closing stdout", "import os, sys\nsys.stdout.close()\nos.close(1)"),
    (
        "builtins replaced",
        "import builtins\nbuiltins.AssertionError = ValueError\nbuiltins.compile = builtins.exec = lambda *a, **k: None\nbuiltins.isinstance = lambda *a: True\nbuiltins.str = lambda x: 'passed'",
    ),
    (
        "an answer that equals everything",
        "class A:\n    def __eq__(self, other):\n        return True\n    def __bool__(self):\n        return True\n    __hash__ = None\n_f = A()\nimport builtins\nbuiltins.int = A",
    ),
    (
        "an int that equals everything",
        "class I(int):\n    def __eq__(self, other):\n        return True\n    def __ne__(self, other):\n        return False\n    __hash__ = int.__hash__\nf = lambda x: I(0)\nglobals()['f'] = f",
    ),
    (
        "a list that equals everything",
        "class L(list):\n    def __eq__(self, other):\n        return True\nf = lambda x: L()\nglobals()['f'] = f",
    ),
    (
        "frames of the caller",
        "import sys\nframe = sys._getframe()\nwhile frame:\n    frame.f_globals['check'] = frame.f_globals['verdict'] = lambda *a: ('passed', '')\n    for name in list(frame.f_locals):\n        frame.f_locals[name] = None\n    frame = frame.f_back",
    ),
    (
        "everything that the collector knows",
        "import gc\nfor thing in gc.get_objects():\n    if type(thing) is dict and 'answer' in thing:\n        thing['answer'] = lambda *a: True",
    ),
    (
        "modules replaced",
        "import sys\nfor name in ('json', 'marshal', 'os', 'tests', '__main__', 'builtins'):\n    sys.modules[name] = None",
    ),
    ("an exit handler", "import atexit, os\natexit.register(lambda: os._exit(0))\nraise KeyboardInterrupt"),
    ("an exception that ends loops", "raise StopIteration"),
    (
        "an exception that is none",
        "class E(BaseException):\n    def __str__(self):\n        raise SystemExit(0)\nraise E",
    ),
    ("a trace function", "import sys\nsys.settrace(lambda *a: sys._getframe(1).f_globals.clear())\n(lambda: 0)()"),
    (
        "a signal handler and an alarm",
        "import signal, os, time\nsignal.signal(signal.SIGALRM, lambda *a: os._exit(0))\nsignal.setitimer(signal.ITIMER_REAL, 0.05)\ntime.sleep(0.5)",
    ),
    (
        "another program in its place",
        "import os, sys\nos.execv(sys.executable, [sys.executable, '-S', '-c', 'print(1)'])",
    ),
];

/// Attacks on the machine.
const ATTACKS: [(&str, &str); 26] = [
    ("fork bomb", "import os\nwhile True:\n    os.fork()"),
    (
        "fork bomb that catches",
        "import os\nfor _ in range(1000):\n    try:\n        os.fork()\n    except OSError:\n        pass",
    ),
    ("subprocesses", "import subprocess\nsubprocess.run(['/bin/sh', '-c', 'sleep 100 &'])"),
    ("os.system", "import os\nassert os.system('echo escaped > /tmp/x') == 0"),
    (
        "daemon",
        "import os\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        import time\n        time.sleep(1000)",
    ),
    (
        "thread bomb",
        "import threading, time\nwhile True:\n    threading.Thread(target=time.sleep, args=(1000,)).start()",
    ),
    ("memory bomb", "x = []\nwhile True:\n    x.append(bytearray(1 << 20))"),
    ("memory bomb at once", "x = bytearray(1 << 34)"),
    (
        "memory bomb that catches",
        "x = []\nwhile True:\n    try:\n        x.append(bytearray(1 << 24))\n    except MemoryError:\n        x = x[:1]",
    ),
    ("a large answer", "_x = 'x' * (1 << 27)\nf = lambda x: _x\nglobals()['f'] = f"),
    ("a deep answer", "y = []\nfor _ in range(100000):\n    y = [y]\nf = lambda x: y\nglobals()['f'] = f"),
    ("endless output", "while True:\n    print('x' * 10000)"),
    ("endless output on stderr", "import os\nwhile True:\n    os.write(2, b'x' * 100000)"),
    ("endless loop", "while True:\n    pass"),
    ("endless loop in C", "'a' * 30 + 'b'\nimport re\nre.match('(a+)+$', 'a' * 60 + 'b')"),
    ("sleep", "import time\ntime.sleep(1000)"),
    (
        "deaf to signals",
        "import signal, time\nfor s in range(1, 65):\n    try:\n        signal.signal(s, signal.SIG_IGN)\n    except (OSError, ValueError):\n        pass\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True:\n    time.sleep(1)",
    ),
    ("stack overflow", "import sys\nsys.setrecursionlimit(1 << 30)\ndef g():\n    return g()\ng()"),
    ("broken memory", "import ctypes\nctypes.string_at(0)"),
    ("disk full", "with open('/tmp/full', 'wb') as file:\n    while True:\n        file.write(b'x' * (1 << 20))"),
    (
        "disk full by many files",
        "import os\nfor i in range(1000000):\n    with open('/tmp/%d' % i, 'wb') as file:\n        file.write(b'x' * 5000)",
    ),
    ("open files", "held = []\nwhile True:\n    held.append(open('/dev/null'))"),
    (
        "killing everyone",
        "import os, signal\nfor pid in [-1, 0, os.getppid(), 1] + list(range(2, 40000, 7)):\n    try:\n        os.kill(pid, signal.SIGKILL)\n    except OSError:\n        pass\nwhile True:\n    pass",
    ),
    (
        "higher limits",
        "import resource\nfor kind in range(16):\n    try:\n        resource.setrlimit(kind, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n    except (OSError, ValueError):\n        pass\nx = bytearray(1 << 30)",
    ),
    (
        "pipes filled",
        "import os\nheld = []\nwhile True:\n    r, w = os.pipe()\n    held += [r, w]\n    os.set_blocking(w, False)\n    os.write(w, b'x' * (1 << 20))",
    ),
    ("a sleeping exit", "import atexit, time\natexit.register(time.sleep, 1000)"),
];

#[test]
fn no_forgery_passes() {
    let Some((sandbox, _alone)) = sandbox(limits()) else { return };
    let before = Host::look();
    let attacks: Vec<_> = FORGERIES.iter().flat_map(|(name, code)| both(name, code)).collect();
    let programs: Vec<Program> = attacks.iter().map(|(_, program)| program.clone()).collect();
    let outcomes = sandbox.run_all(&programs, 2, None).unwrap();
    for ((name, _), outcome) in attacks.iter().zip(&outcomes) {
        assert!(!outcome.passed(), "{name}: {outcome:?}");
    }
    // The same programs where the output counts: it is not what is asked for.
    let scripts: Vec<Program> = FORGERIES.iter().map(|(_, code)| script(code, "", "41")).collect();
    for ((name, _), outcome) in FORGERIES.iter().zip(sandbox.run_all(&scripts, 2, None).unwrap()) {
        assert!(!outcome.passed(), "{name}: {outcome:?}");
    }
    before.assert_unharmed();
}

#[test]
fn no_attack_gets_out() {
    let Some((sandbox, _alone)) = sandbox(limits()) else { return };
    let before = Host::look();
    let attacks: Vec<_> = ATTACKS.iter().flat_map(|(name, code)| both(name, code)).collect();
    let programs: Vec<Program> = attacks.iter().map(|(_, program)| program.clone()).collect();
    for ((name, _), outcome) in attacks.iter().zip(sandbox.run_all(&programs, 2, None).unwrap()) {
        assert!(!outcome.passed(), "{name}: {outcome:?}");
        assert!(outcome.seconds < 6.0, "{name} ran for {} s", outcome.seconds);
        assert!(outcome.peak_memory.is_none_or(|peak| peak <= limits().memory), "{name}: {:?}", outcome.peak_memory);
        assert!(outcome.stdout.len() as u64 <= 2 * limits().output, "{name}");
    }
    before.assert_unharmed();
}

/// What each of these prints is what it could do, so that "nothing" is the right answer to a program that tries.
#[test]
fn nothing_of_the_host_can_be_reached() {
    let Some((sandbox, _alone)) = sandbox(Limits::default()) else { return };
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    fs::write(&secret, "of the user").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let socket = folder.path().join("socket");
    let _unix = UnixListener::bind(&socket).unwrap();
    let mut victim = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
    let before = Host::look();

    let head = format!(
        "import os, sys\nsecret, socket_path = {:?}, {:?}\nport, parent, victim = {port}, {}, {}\n",
        secret.to_str().unwrap(),
        socket.to_str().unwrap(),
        std::process::id(),
        victim.id()
    );
    let attempts = [
        ("read a file of the user's", "done(open(secret).read())"),
        ("list the user's folder", "done(os.listdir(os.path.dirname(secret)))"),
        ("read /etc/passwd", "done(open('/etc/passwd').read())"),
        ("read the host's /proc", "done(os.listdir('/proc/1'))"),
        ("read through its own root", "done(open('/proc/self/root' + secret).read())"),
        ("go up", "os.chdir('/tmp')\ndone(open('../' * 30 + secret[1:]).read())"),
        ("a link to outside", "os.symlink(secret, '/tmp/link')\ndone(open('/tmp/link').read())"),
        ("a hard link", "os.link(os.__file__, '/tmp/hard')\ndone(1)"),
        (
            "chroot and out",
            "os.mkdir('/tmp/d')\nos.chroot('/tmp/d')\nos.chdir('../../../..')\ndone(open(secret).read())",
        ),
        (
            "an inherited descriptor",
            "for fd in range(5, 64):\n    try:\n        done(os.fstat(fd))\n    except OSError:\n        pass",
        ),
        ("write outside", "open(os.path.join(os.path.dirname(secret), 'made'), 'w').write('x')\ndone(1)"),
        ("write to the root", "open('/made', 'w').write('x')\ndone(1)"),
        ("write into the library", "open(os.__file__, 'a').write('x')\ndone(1)"),
        (
            "make the root writable",
            "import ctypes\nlibc = ctypes.CDLL(None)\nif libc.mount(None, b'/', None, 32, None) == 0:\n    done(1)",
        ),
        ("unmount", "import ctypes\nif ctypes.CDLL(None).umount2(b'/tmp', 2) == 0:\n    done(1)"),
        ("a device", "import stat\nos.mknod('/tmp/mem', stat.S_IFCHR | 0o600, os.makedev(1, 1))\ndone(1)"),
        ("a set-user-id file", "open('/tmp/s', 'w')\nos.chown('/tmp/s', 0, 0)\ndone(1)"),
        ("be root", "os.setuid(0)\ndone(1)"),
        ("be root in a namespace", "import ctypes\nif ctypes.CDLL(None).unshare(0x10000000) == 0:\n    done(1)"),
        ("enter a namespace", "import ctypes\nif ctypes.CDLL(None).setns(3, 0) == 0:\n    done(1)"),
        ("connect", "import socket\nsocket.create_connection(('127.0.0.1', port), 1)\ndone(1)"),
        ("connect to the internet", "import socket\nsocket.create_connection(('1.1.1.1', 53), 1)\ndone(1)"),
        ("a unix socket", "import socket\ns = socket.socket(socket.AF_UNIX)\ns.connect(socket_path)\ndone(1)"),
        ("a raw socket", "import socket\nsocket.socket(socket.AF_PACKET, socket.SOCK_RAW)\ndone(1)"),
        (
            "an end of a pair, connected elsewhere",
            "import socket\na, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\na.sendto(b'x', socket_path)\ndone(1)",
        ),
        ("an abstract socket", "import socket\na, b = socket.socketpair()\na.connect('\\0qstar')\ndone(1)"),
        ("a name of the internet", "import socket\ndone(socket.getaddrinfo('example.com', 80))"),
        ("kill the parent", "for pid in (parent, victim):\n    os.kill(pid, 9)\n    done(1)"),
        (
            "trace the parent",
            "import ctypes\nlibc = ctypes.CDLL(None)\nfor pid in (parent, victim, os.getppid(), 0):\n    if libc.ptrace(16, pid, 0, 0) == 0 or libc.ptrace(0, 0, 0, 0) == 0:\n        done(1)",
        ),
        (
            "read the parent's memory",
            "import ctypes\nlibc = ctypes.CDLL(None)\nlibc.syscall.restype = ctypes.c_long\nassert os.uname().machine == 'x86_64'\nb = ctypes.create_string_buffer(8)\niov = (ctypes.c_void_p * 2)(ctypes.addressof(b), 8)\nif libc.syscall(310, parent, iov, 1, iov, 1, 0) >= 0:\n    done(1)",
        ),
        ("run a program of the host", "os.execv('/bin/sh', ['sh', '-c', 'echo escaped'])"),
        (
            "run a program of its own",
            "open('/tmp/p', 'wb').write(b'#!' + sys.executable.encode() + b'\\nprint(\"escaped\")')\nos.chmod('/tmp/p', 0o755)\nos.execv('/tmp/p', ['p'])",
        ),
        (
            "io_uring, bpf, keys, userfaultfd, memfd, perf, shm",
            "import ctypes\nlibc = ctypes.CDLL(None)\nlibc.syscall.restype = ctypes.c_long\nassert os.uname().machine == 'x86_64'\nfor number in (425, 321, 248, 250, 323, 319, 298, 29, 68, 240):\n    if libc.syscall(number, 1, 0, 0, 0, 0) != -1:\n        done(number)",
        ),
        ("push characters into a terminal", "import fcntl\nfcntl.ioctl(0, 0x5412, b'x')\ndone(1)"),
        ("die later than its parent", "import ctypes\nif ctypes.CDLL(None).prctl(1, 0) == 0:\n    done(1)"),
        ("know the host's name", "if os.uname().nodename != 'sandbox':\n    done(os.uname())"),
        (
            "know the environment",
            "for name in os.environ:\n    if name not in ('HOME', 'TMPDIR', 'LANG', 'PYTHONHASHSEED', 'PYTHONSAFEPATH', 'LC_CTYPE'):\n        done(name)",
        ),
    ];
    let wrap = |code: &str| {
        let code: String = code.lines().map(|line| format!("    {line}\n")).collect();
        format!(
            "{head}def done(what):\n    print('did it', what)\ntry:\n{code}except Exception as error:\n    print(type(error).__name__, file=sys.stderr)\nprint('nothing')\n"
        )
    };
    let programs: Vec<Program> = attempts.iter().map(|(_, code)| script(&wrap(code), "", "nothing")).collect();
    for ((name, _), outcome) in attempts.iter().zip(sandbox.run_all(&programs, 2, None).unwrap()) {
        println!("{name}: {}", outcome.stderr.trim());
        assert_eq!(outcome.verdict, Verdict::Passed, "{name}: {outcome:?}");
    }
    // The programs do what they say: where nothing forbids it, the first one reads the file.
    let code = wrap(attempts[0].1);
    let free = Command::new("python3").args(["-c", &code]).output().unwrap();
    assert!(String::from_utf8_lossy(&free.stdout).contains("did it of the user"));

    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "somebody connected");
    assert!(victim.try_wait().unwrap().is_none(), "the neighbour was killed");
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert_eq!(fs::read_to_string(&secret).unwrap(), "of the user");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    before.assert_unharmed();
}

/// A folder is fresh: what one program leaves the next does not find.
#[test]
fn programs_leave_nothing_to_each_other() {
    let Some((sandbox, _alone)) = sandbox(Limits::default()) else { return };
    let code = "import os\nprint(os.listdir('/tmp'))\nopen('/tmp/left', 'w').write('x')\nprint(os.listdir('/tmp'))";
    let programs = vec![script(code, "", "[]\n['left']"); 3];
    assert!(sandbox.run_all(&programs, 1, None).unwrap().iter().all(Outcome::passed));
}

/// Answers that are plain values and yet hard to look at stop the tests of no other program.
#[test]
fn hard_answers_harm_the_tests_of_nobody_else() {
    let Some((sandbox, _alone)) = sandbox(Limits { seconds: 1.5, ..limits() }) else { return };
    let before = Host::look();
    let hard = [
        ("def f(x): return range(10 ** 15)", "assert list(f(1)) == [1]"),
        ("import decimal\ndef f(x): return decimal.Decimal('1e999999999')", "assert int(f(1)) == 1"),
        ("def f(x): return {i * ((1 << 61) - 1): 0 for i in range(60000)}", "assert f(1) == {1: 1}"),
        ("def f(x): return 'a' * (15 << 20)", "import re\nassert re.fullmatch('(a*)*b', f(1))"),
        ("def f(x): return [[x] * 1000] * 1000", "assert repr(f(10 ** 30)) * 100 == ''"),
        ("def f(x): return [1] * 7000000 if x == 1 else 0", "assert f(f(1)) == 1"),
        ("def f(x): raise ValueError('\\ud800' * 10)", "assert f(1) == 1"),
        ("def f(x): raise type('\\ud800' * 10000, (Exception,), {})('x' * 100000)", "assert f(1) == 1"),
        (
            "import os\ndef f(x):\n    data = b'[\"!\", \"E\", \"' + b'\\\\ud800' * 2000000 + b'\"]'\n    data = len(data).to_bytes(4, 'little') + data\n    while data: data = data[os.write(4, data):]",
            "assert f(1) == 1",
        ),
        ("f = type('C', (), {'__call__': lambda self, x: self})()", "assert f(1)(1).x.y < 3"),
    ];
    let mut programs = Vec::new();
    for (code, test) in hard {
        programs.push(program(code, &[test]));
        programs.push(program("def f(x): return x + 1", &["assert f(1) == 2"]));
    }
    // The tests of an honest program do not take a second, but it shares the machine.
    for (number, outcome) in sandbox.run_all(&programs, 1, None).unwrap().iter().enumerate() {
        assert_eq!(outcome.passed(), number % 2 == 1, "{number}: {outcome:?}");
    }
    before.assert_unharmed();
}

/// What attacks aim at: files, and processes in namespaces of their own.
struct Host {
    files: Vec<&'static str>,
    processes: BTreeSet<String>,
}

impl Host {
    fn look() -> Self {
        Self { files: made(), processes: in_namespaces() }
    }

    fn assert_unharmed(&self) {
        assert_eq!(made(), self.files, "a file was made");
        let now = in_namespaces();
        assert_eq!(now.difference(&self.processes).next(), None, "a process is left");
    }
}

/// Those of the files that the attacks would make that are there.
fn made() -> Vec<&'static str> {
    let files = [
        "/tmp/full",
        "/tmp/x",
        "/tmp/0",
        "/tmp/large",
        "/tmp/left",
        "/tmp/link",
        "/tmp/mem",
        "/tmp/s",
        "/tmp/p",
        "/made",
    ];
    files.into_iter().filter(|path| Path::new(path).exists()).collect()
}

/// Processes that have a number of their own in a namespace below ours: all that a sandbox starts.
pub fn in_namespaces() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(status) = fs::read_to_string(entry.path().join("status")) else { continue };
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        if numbers.is_some_and(|numbers| numbers.split_whitespace().count() > 1) {
            found.insert(entry.file_name().to_string_lossy().into_owned());
        }
    }
    found
}
