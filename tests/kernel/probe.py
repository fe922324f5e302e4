"""Starts the kernel, runs cells, asks for completions. JSON in on stdin, JSON out on stdout."""

import json
import queue
import subprocess
import sys
import time

from jupyter_client.manager import KernelManager


def main():
    asked = json.load(sys.stdin)
    begun = time.monotonic()
    manager = KernelManager(kernel_name="rust-qstar")
    manager.start_kernel(cwd=asked["folder"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=300)
        ready = time.monotonic() - begun
        cells = [run(client, code) for code in asked["cells"]]
        completions = [complete(client, code) for code in asked["completions"]]
    finally:
        client.stop_channels()
        manager.shutdown_kernel()
    json.dump({"ready": ready, "cells": cells, "completions": completions}, sys.stdout)


def run(client, code):
    begun = time.monotonic()
    result = {"stdout": "", "stderr": "", "data": {}, "errors": []}
    request = client.execute(code)
    idle = False
    while True:
        try:
            message = client.get_iopub_msg(timeout=0.2 if idle else 600)
        except queue.Empty:
            return result
        kind, content = message["msg_type"], message["content"]
        if kind == "stream":
            result[content["name"]] += content["text"]
        elif kind == "execute_result":
            result["data"].update(content["data"])
        elif kind == "error":
            result["errors"].append("\n".join(content["traceback"]) or content["evalue"])
        elif content.get("execution_state") == "idle" and message["parent_header"]["msg_id"] == request:
            idle = True
            result["seconds"] = time.monotonic() - begun


def complete(client, code):
    begun = time.monotonic()
    reply = client.complete(code, len(code), reply=True, timeout=60)
    return {"matches": reply["content"].get("matches", []), "seconds": time.monotonic() - begun}


main()
