# Runs a program that nobody trusts. It shares its interpreter with that program, so nothing that it says is believed:
# it only hands over values, and what they are worth is decided in another process.


def _candidate():
    import marshal
    import os
    import sys

    # Kept here: the program may replace what modules and builtins hold.
    read, write, loads = os.read, os.write, marshal.loads
    requests, replies = 3, 4

    def source(data):
        return compile(data, "<program>", "exec", dont_inherit=True)

    def module(name):
        made = type(sys)(name)
        sys.modules[name] = made
        return made.__dict__

    def run_script():
        parts = []
        while part := read(requests, 1 << 16):
            parts.append(part)
        os.close(requests)
        os.close(replies)
        exec(source(b"".join(parts)), module("__main__"))

    def receive():
        def exactly(count):
            parts = b""
            while len(parts) < count:
                part = read(requests, count - len(parts))
                if not part:
                    os._exit(1)
                parts += part
            return parts

        return loads(exactly(int.from_bytes(exactly(4), "little")))

    def send(text):
        data = text.encode("ascii")
        data = len(data).to_bytes(4, "little") + data
        while data:
            data = data[write(replies, data) :]

    # As JSON wants it. The module json would take longer to import than most programs run.
    def quote(text):
        if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
            return '"' + text + '"'
        units = text.encode("utf-16-le", "surrogatepass")
        return '"' + "".join(["\\u%02x%02x" % (high, low) for low, high in zip(units[::2], units[1::2])]) + '"'

    objects = []
    iterators = {type(made) for made in (iter([]), iter(()), iter({}), iter(set()), iter(""), iter(range(0)))}
    iterators |= {type(made) for made in (iter({}.keys()), iter({}.values()), iter({}.items()), reversed([]))}
    iterators |= {map, filter, zip, enumerate, reversed, type(None for _ in ())}

    def items(tag, values):
        return '["' + tag + '"' + "".join(["," + encode(value) for value in values]) + "]"

    # A value as JSON: every container is a list that begins with its kind. What is no plain value stays here and is
    # named by a number.
    def encode(value):
        kind = type(value)
        if value is None:
            return "null"
        if kind is bool:
            return "true" if value else "false"
        if kind is int:
            return str(value) if -(1 << 62) < value < 1 << 62 else '["i","' + hex(value) + '"]'
        if kind is float:
            return "NaN" if value != value else repr(value).replace("inf", "Infinity")
        if kind is str:
            return quote(value)
        if kind is list:
            return items("l", value)
        if kind is tuple:
            return items("t", value)
        if kind is dict:
            return items("d", [part for pair in value.items() for part in pair])
        if kind is set:
            return items("s", value)
        if kind is frozenset:
            return items("f", value)
        if kind is bytes:
            return '["b","' + value.hex() + '"]'
        if kind is complex:
            return items("c", (value.real, value.imag))
        if kind is range:
            return items("r", (value.start, value.stop, value.step))
        if kind in iterators:
            return items("n", list(value))
        if kind.__name__ in ("dict_keys", "dict_values", "dict_items"):
            return items("l", list(value))
        if kind.__name__ == "deque":
            return items("q", list(value))
        for plain in (str, int, float, list, tuple, dict, set, frozenset, bytes, complex):
            if isinstance(value, plain):
                return encode(plain(value))
        if kind.__module__ in ("datetime", "decimal", "fractions"):
            made = value.__reduce__()
            return items("m", (kind.__module__, kind.__name__, made[1]))
        objects.append(value)
        return '["h",%d]' % (len(objects) - 1)

    # The way back; the sender is trusted. A tuple that begins with an Ellipsis is what marshal has no kind for.
    def decode(value):
        kind = type(value)
        if kind is list:
            return [decode(part) for part in value]
        if kind is dict:
            return {decode(key): decode(part) for key, part in value.items()}
        if kind is tuple:
            if value and value[0] is Ellipsis:
                return special(value[1], value[2])
            return tuple([decode(part) for part in value])
        return value

    def special(name, payload):
        if name == "object":
            return objects[payload]
        if name == "range":
            return range(*payload)
        if name == "iterator":
            return iter(decode(payload))
        if name == "type":
            return getattr(__builtins__, payload)
        import collections

        return getattr(collections, name)(decode(payload))

    def answer(request, names):
        what = request[0]
        if what == "load":
            exec(source(request[1]), names)
            return None
        if what == "get":
            if request[1] not in names:
                raise NameError("the program does not define " + request[1])
            return names[request[1]]
        if what == "call":
            return objects[request[1]](*decode(request[2]), **decode(request[3]))
        if what == "attribute":
            return getattr(objects[request[1]], request[2])
        if what == "set":
            return setattr(objects[request[1]], request[2], decode(request[3]))
        # The end: the process will be killed.
        sys.stdout.flush()
        return None

    def serve():
        names = module("program")
        while True:
            request = receive()
            try:
                reply = encode(answer(request, names))
            except BaseException as error:
                try:
                    reply = items("!", (type(error).__name__, str(error)[:1000]))
                except BaseException:
                    reply = '["!","Exception","an exception that has no text"]'
            send(reply)

    sys.path[:] = [place for place in sys.path if place]
    # What the module site would have put there.
    __builtins__.exit = __builtins__.quit = sys.exit
    if sys.argv.pop() == "serve":
        serve()
    else:
        run_script()


_candidate()
