# Runs the tests of a data set against a program that is in another process. No line of that program runs here, and what
# comes from it are plain values; so it cannot decide what this process says.
#
# One process serves many programs: each is tested in a fork.

import builtins
import json
import marshal
import os
import sys

import collections, datetime, decimal, fractions, itertools, math, random, re, string, typing  # noqa: E401

REQUESTS, REPLIES = 3, 4
DONE = 77
# The largest message.
LONGEST = 16 << 20


def exactly(count):
    parts = b""
    while len(parts) < count:
        part = os.read(REQUESTS, count - len(parts))
        if not part:
            os._exit(1)
        parts += part
    return parts


def receive():
    """The kind of a message and its bytes."""
    data = exactly(int.from_bytes(exactly(4), "little"))
    return data[:1], data[1:]


def send(kind, data):
    data = (len(data) + 1).to_bytes(4, "little") + kind + data
    while data:
        data = data[os.write(REPLIES, data) :]


class ProgramError(Exception):
    """An exception of the program that is not one of Python's own."""


class Gone(BaseException):
    """The program's process has ended. Not an Exception: no test is to catch it."""


class Remote:
    """Something of the program that is no plain value: it can be called, and its attributes can be read and set."""

    __slots__ = ("_number",)

    def __init__(self, number):
        object.__setattr__(self, "_number", number)

    def __call__(self, *arguments, **named):
        return ask("call", self._number, pack(list(arguments)), pack(named))

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return ask("attribute", self._number, name)

    def __setattr__(self, name, value):
        ask("set", self._number, name, pack(value))


# The last exception of the program, and how it is told.
raised, told = None, ""


def ask(*request):
    global raised, told
    call = marshal.dumps(request)
    if len(call) >= LONGEST:
        raise ValueError(f"a test hands the program {len(call)} bytes; the limit is {LONGEST}")
    send(b"C", call)
    kind, data = receive()
    if kind != b"R":
        raise Gone
    reply = json.loads(data)
    if type(reply) is list and reply and reply[0] == "!":
        name, message = str(reply[1])[:100], str(reply[2])[:1000]
        told = f"{name}: {message}"
        kind = getattr(builtins, name, None)
        # The last two would end a loop over the program's answers as if there were no more of them.
        python_own = isinstance(kind, type) and issubclass(kind, Exception)
        if not python_own or issubclass(kind, (StopIteration, StopAsyncIteration)):
            raised = ProgramError(told)
        else:
            try:
                raised = kind(message)
            except Exception:
                raised = ProgramError(told)
        raise raised
    return unpack(reply)


MADE = {
    ("datetime", "date"): datetime.date,
    ("datetime", "datetime"): datetime.datetime,
    ("datetime", "time"): datetime.time,
    ("datetime", "timedelta"): datetime.timedelta,
    ("decimal", "Decimal"): decimal.Decimal,
    ("fractions", "Fraction"): fractions.Fraction,
}


def unpack(value):
    """The value of a reply, whose sender is not trusted."""
    if type(value) is not list:
        if type(value) is dict:
            raise ValueError("the program's answer is not in the agreed form")
        return value
    tag, parts = value[0], value[1:]
    if tag == "i":
        return int(parts[0], 16)
    if tag == "b":
        return bytes.fromhex(parts[0])
    if tag == "h":
        return Remote(int(parts[0]))
    parts = [unpack(part) for part in parts]
    if tag == "l":
        return parts
    if tag == "t":
        return tuple(parts)
    if tag == "d":
        return dict(zip(parts[::2], parts[1::2]))
    if tag == "s":
        return set(parts)
    if tag == "f":
        return frozenset(parts)
    if tag == "c":
        return complex(*parts)
    if tag == "r":
        return range(*parts)
    if tag == "n":
        return iter(parts)
    if tag == "q":
        return collections.deque(parts)
    if tag == "m":
        return MADE[parts[0], parts[1]](*parts[2])
    raise ValueError("the program's answer is not in the agreed form")


PLAIN = {type(None), bool, int, float, complex, str, bytes}


def pack(value):
    """A value of the tests as marshal can hold it."""
    kind = type(value)
    if kind in PLAIN:
        return value
    if kind is list:
        return [pack(part) for part in value]
    if kind is tuple:
        if value and value[0] is Ellipsis:
            raise TypeError("a tuple that begins with an Ellipsis cannot be handed to the program")
        return tuple([pack(part) for part in value])
    if kind is dict:
        return {pack(key): pack(part) for key, part in value.items()}
    if kind in (set, frozenset):
        return kind(pack(part) for part in value)
    if kind is Remote:
        return (..., "object", value._number)
    if kind is range:
        return (..., "range", (value.start, value.stop, value.step))
    if kind in (collections.Counter, collections.OrderedDict):
        return (..., kind.__name__, pack(dict(value)))
    if kind is collections.deque:
        return (..., "deque", pack(list(value)))
    if kind is type and getattr(builtins, value.__name__, None) is value:
        return (..., "type", value.__name__)
    if hasattr(kind, "__next__"):
        return (..., "iterator", pack(list(value)))
    raise TypeError(f"a test hands the program a {kind.__name__}, which is no plain value")


def names_in(code):
    found = set(code.co_names)
    for constant in code.co_consts:
        if hasattr(constant, "co_names"):
            found |= names_in(constant)
    return found


def run_tests(job):
    names = {"__name__": "tests"}
    exec(compile(job["setup"], "<setup>", "exec"), names)
    tests = [compile(test, "<tests>", "exec") for test in job["tests"]]
    used = set().union(*(names_in(test) for test in tests))
    ask("load", job["code"])
    for name in job["names"]:
        if name in used:
            names[name] = ask("get", name)
    for test in tests:
        exec(test, names)


def numbered(value):
    """JSON has no dictionaries with numbers as keys; data sets write them as text."""
    if type(value) is dict and value:
        try:
            return {int(key): part for key, part in value.items()}
        except ValueError:
            pass
    return value


def lists(value):
    if type(value) in (list, tuple):
        return [lists(part) for part in value]
    return value


def run_calls(job):
    ask("load", job["code"])
    try:
        function = getattr(ask("get", "Solution")(), job["function"])
    except NameError:
        function = ask("get", job["function"])
    cases = json.loads(job["cases"])
    for number, (arguments, expected) in enumerate(zip(cases["inputs"], cases["outputs"]), 1):
        result = lists(function(*[numbered(argument) for argument in arguments]))
        expected = numbered(expected)
        # The data set writes a result now as it is, now as a list of one.
        alone = type(expected) is list and len(expected) == 1 and result == numbered(expected[0])
        assert result == expected or alone, f"call {number}: {result!r:.200} instead of {expected!r:.200}"


def verdict(job):
    try:
        run_calls(job) if "function" in job else run_tests(job)
        ask("end")
        return "passed", ""
    except Gone:
        return "gone", ""
    except BaseException as error:
        said = why(error)
    try:
        ask("end")
    except BaseException:
        pass
    return said


def why(error):
    kind, text = type(error).__name__, str(error)[:1000]
    if error is raised:
        return ("memory" if isinstance(error, MemoryError) else "exception"), told
    if isinstance(error, AssertionError):
        return "wrong", text or "an assertion does not hold"
    return "wrong", f"{kind}: {text}"


def main():
    # What tests print is for nobody.
    nowhere = os.open("/dev/null", os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nowhere, descriptor)
    while True:
        kind, data = receive()
        if kind != b"J":
            continue
        pid = os.fork()
        if pid == 0:
            said = b'["wrong", "what the tests say cannot be written"]'
            try:
                name, message = verdict(json.loads(data))
                # What stands in a program's message need not be text that others can read.
                said = json.dumps([name, message[:2000].encode("utf-8", "replace").decode()]).encode()
            finally:
                send(b"V", said)
                os._exit(DONE)
        _, status = os.waitpid(pid, 0)
        if not (os.WIFEXITED(status) and os.WEXITSTATUS(status) == DONE):
            send(b"V", b'["broken", "the tests ended the interpreter that runs them"]')


sys.path[:] = [place for place in sys.path if place]
main()
