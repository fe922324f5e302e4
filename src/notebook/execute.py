"""Runs one notebook with the rust-qstar kernel, in the notebook's folder.

    python execute.py IN.ipynb OUT.ipynb

Every cell's text is shown as it arrives. The notebook is written to OUT, whole, also when a cell fails.
The exit status is 0 only when every code cell ran to its end.

The kernel answers "ok" to a cell that panicked and to one that left by `?` with an error. So each cell gets one
more statement, which prints a mark: a cell whose mark does not arrive did not run to its end, whatever the kernel
says, and what it wrote on stderr is the reason. Writing on stderr alone is no failure. A panic of another thread,
which does not end the cell, is found by its text.
"""

import copy
import os
import queue
import re
import subprocess
import sys
import tempfile
import time

import nbformat
from jupyter_client.manager import KernelManager

KERNEL = "rust-qstar"
START_TIMEOUT = 300  # seconds until the kernel must answer
LATE = 2.0  # seconds to wait for a mark after the kernel says that the cell is done
PANIC = re.compile(r"^thread '.*?'( \(\d+\))? panicked at ", re.MULTILINE)
COLOR = re.compile(r"\x1b\[[0-9;]*m")


def main():
    source, target = (os.path.abspath(path) for path in sys.argv[1:3])
    notebook = nbformat.read(source, as_version=4)
    started = time.monotonic()
    failure = None
    try:
        failure = execute(notebook, os.path.dirname(source))
    finally:
        write(notebook, target)
    if failure:
        print(f"\nFAILED: {os.path.basename(source)}, {failure}", file=sys.stderr)
        print(f"The notebook as far as it ran: {target}", file=sys.stderr)
        sys.exit(1)
    print(f"{os.path.basename(source)}: done in {time.monotonic() - started:.1f} s", flush=True)


def execute(notebook, folder):
    """Runs all code cells. Returns what failed, or None."""
    with tempfile.TemporaryFile("w+", errors="replace") as own_words:
        return execute_with(notebook, folder, own_words)


def execute_with(notebook, folder, own_words):
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in cells:
        cell.outputs, cell.execution_count = [], None
    manager = KernelManager(kernel_name=KERNEL)
    # What the kernel's own process says is no cell's output.
    manager.start_kernel(cwd=folder, stdout=subprocess.DEVNULL, stderr=own_words)
    client = manager.client()
    try:
        client.start_channels()
        begun = time.monotonic()
        try:
            client.wait_for_ready(timeout=START_TIMEOUT)
        except RuntimeError as error:
            own_words.seek(0)
            return f"the kernel did not start: {error}" + indented(own_words.read())
        print(f"kernel ready after {time.monotonic() - begun:.1f} s", flush=True)
        notebook.metadata["kernelspec"] = {
            "name": KERNEL,
            "display_name": manager.kernel_spec.display_name,
            "language": "rust",
        }
        number = 0
        for cell in cells:
            if not cell.source.strip():
                continue
            number += 1
            cell.execution_count = number
            run = Run(manager, client, cell, number)
            title = first_line(cell.source)
            print(f"\n[{number}] {title}", flush=True)
            reason = run.to_its_end()
            print(f"    ({run.seconds:.1f} s)", flush=True)
            if reason:
                return f"cell {number} ({title}): {reason}"
        return None
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=False)


class Run:
    """One cell's run."""

    def __init__(self, manager, client, cell, number):
        self.manager, self.client, self.cell, self.number = manager, client, cell, number
        self.mark = f"\x1e{KERNEL} {os.getpid()}.{number}\x1e"
        self.marked = False
        self.errors = []
        self.stderr = ""
        self.seconds = 0.0

    def to_its_end(self):
        """Runs the cell. Returns the reason why it failed, or None."""
        code, asks = self.with_mark()
        begun = time.monotonic()
        request = self.client.execute(code, allow_stdin=False, stop_on_error=False)
        if not self.listen(request):
            return "the kernel died" + indented(self.stderr)
        self.seconds = time.monotonic() - begun
        self.drain(until_marked=asks and not self.errors)
        return self.reason(asks)

    def with_mark(self):
        """The code with the statement that prints the mark, where a statement can follow.

        A cell that ends with an expression shows its value, and a statement after it would hide that value: such a
        cell has no mark, and its value tells that it ran. (An expression with a value must not end with a brace.)
        """
        last = last_code_line(self.cell.source)
        if last.endswith((";", "}")) or last.startswith(":"):
            return f'{self.cell.source}\nprintln!("{self.mark}");', True
        return self.cell.source, False

    def listen(self, request):
        """Takes messages until the cell is idle. False: the kernel is gone."""
        while True:
            try:
                message = self.client.get_iopub_msg(timeout=1)
            except queue.Empty:
                if not self.manager.is_alive():
                    return False
                continue
            self.take(message)
            mine = message["parent_header"].get("msg_id") == request
            if mine and message["content"].get("execution_state") == "idle":
                return True

    def drain(self, until_marked):
        """Takes what arrives late: the streams and the reply come by different ways."""
        ends = time.monotonic() + LATE
        while time.monotonic() < ends:
            try:
                self.take(self.client.get_iopub_msg(timeout=0.1))
            except queue.Empty:
                if self.marked or not until_marked:
                    return

    def take(self, message):
        kind, content = message["msg_type"], message["content"]
        if kind == "stream":
            self.stream(content["name"], content["text"])
        elif kind in ("execute_result", "display_data"):
            output = nbformat.v4.new_output(kind, data=content["data"], metadata=content.get("metadata", {}))
            if kind == "execute_result":
                output.execution_count = self.number
            self.cell.outputs.append(output)
        elif kind == "error":
            self.errors.append(content)
            self.cell.outputs.append(
                nbformat.v4.new_output(
                    "error", ename=content["ename"], evalue=content["evalue"], traceback=content["traceback"]
                )
            )

    def stream(self, name, text):
        if self.mark in text:
            self.marked = True
            text = text.replace(self.mark + "\n", "")
            text += "\n" if text else ""
        if not text:
            return
        if name == "stderr":
            self.stderr += text
        for line in text.splitlines():
            print(f"    {line}", flush=True)
        last = self.cell.outputs[-1] if self.cell.outputs else None
        if last is not None and last.output_type == "stream" and last.name == name:
            last.text += text
        else:
            self.cell.outputs.append(nbformat.v4.new_output("stream", name=name, text=text))

    def reason(self, asks):
        if self.errors:
            shown = [line for error in self.errors for line in error["traceback"] or [error["evalue"]]]
            return "error" + indented("\n".join(shown))
        if PANIC.search(self.stderr):
            return "panic" + indented(self.stderr)
        if asks and not self.marked:
            return "it did not run to its end" + indented(self.stderr)
        has_value = any(output.output_type == "execute_result" for output in self.cell.outputs)
        if not asks and self.stderr and not has_value:
            return "it wrote on stderr and showed no value" + indented(self.stderr)
        return None


def last_code_line(source):
    """The last line that is not empty and not a comment, without a comment at its end."""
    for line in reversed(source.splitlines()):
        line = re.sub(r"//.*$", "", line) if '"' not in line else line
        if line.strip():
            return line.strip()
    return ""


def first_line(source):
    for line in source.splitlines():
        if line.strip():
            return line.strip()[:100]
    return ""


def indented(text):
    text = COLOR.sub("", text).strip()
    return ":\n" + "\n".join(f"    {line}" for line in text.splitlines()) if text else ""


def write(notebook, target):
    """Writes the notebook whole or not at all."""
    clean = copy.deepcopy(notebook)
    for cell in clean.cells:
        cell.metadata.pop("execution", None)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    part = f"{target}.{os.getpid()}.part"
    try:
        nbformat.write(clean, part)
        os.replace(part, target)
    finally:
        if os.path.exists(part):
            os.remove(part)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)
