"""Runs codes as cells of one kernel, each as execute.py does. JSON in on stdin, the reasons of failure out on stdout."""

import contextlib
import importlib.util
import io
import json
import subprocess
import sys

import nbformat
from jupyter_client.manager import KernelManager


def main():
    asked = json.load(sys.stdin)
    spec = importlib.util.spec_from_file_location("execute", asked["execute"])
    execute = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(execute)
    manager = KernelManager(kernel_name="rust-qstar")
    manager.start_kernel(cwd=asked["folder"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    client = manager.client()
    client.start_channels()
    reasons = []
    try:
        client.wait_for_ready(timeout=300)
        for number, code in enumerate(asked["codes"], 1):
            cell = nbformat.v4.new_code_cell(code)
            with contextlib.redirect_stdout(io.StringIO()):
                reasons.append(execute.Run(manager, client, cell, number).to_its_end())
    finally:
        client.stop_channels()
        manager.shutdown_kernel()
    json.dump(reasons, sys.stdout)


sys.dont_write_bytecode = True
main()
