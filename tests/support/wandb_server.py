"""As much of a W&B server as an online run needs: it takes the key, keeps history and views, and can fall silent."""

from __future__ import annotations

import contextlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

KEY = "0123456789" * 4


class WandbServer:
    """Answers on a free port of this machine while its context is open.

    Attributes:
        url: for ``WANDB_BASE_URL``.
        silent: drop every connection without an answer, as a network does that has gone.
        silent_after: the operation whose answer is the last one; "" for none.
        runs: W&B run id -> what was asked for when it was started, newest last.
        views: saved workspaces and reports, newest last.
    """

    def __init__(self, accepts: bool = True) -> None:
        self.accepts, self.silent, self.silent_after = accepts, False, ""
        self.runs: dict[str, list[dict[str, Any]]] = {}
        self.views: list[dict[str, Any]] = []
        self.calls: list[str] = []
        self._lines: dict[str, dict[int, str]] = {}
        self._summaries: dict[str, str] = {}
        self._exits: dict[str, int] = {}
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> WandbServer:
        Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.silent = True
        self._http.shutdown()
        self._http.server_close()

    def environment(self, home: Any) -> dict[str, str]:
        """Return the variables of a person with this server, a key and an own home folder."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY, "HOME": str(home), "NETRC": f"{home}/none"}

    def history(self, run: str) -> list[dict[str, Any]]:
        """Return the rows of a run in the order of their places."""
        lines = self._lines.get(run, {})
        return [json.loads(lines[place]) for place in sorted(lines)]

    def exit_code(self, run: str) -> int | None:
        return self._exits.get(run)

    # --- the protocol --------------------------------------------------------------------------------------------

    def _stream(self, path: str, body: dict[str, Any]) -> None:
        run = path.split("/")[-2]
        for name, part in (body.get("files") or {}).items():
            if name == "wandb-history.jsonl":
                places = enumerate(part["content"], part["offset"])
                self._lines.setdefault(run, {}).update(places)
            elif name == "wandb-summary.json":
                self._summaries[run] = part["content"][-1]
        if body.get("exitcode") is not None:
            self._exits[run] = body["exitcode"]

    def _answer(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        project = {"id": "p", "internalId": "cA==", "name": given.get("project"), "entity": {"id": "e", "name": "me"}}
        run = str(given.get("name"))
        if operation in ("Viewer", "GetDefaultEntity"):
            edges: dict[str, Any] = {"edges": []}
            me = {"id": "u", "username": "me", "entity": "me", "name": "me", "email": "", "flags": "{}", "teams": edges}
            return {"viewer": me if self.accepts else None}
        if operation == "UpsertBucket":
            new = run not in self.runs
            self.runs.setdefault(run, []).append(given)
            bucket = {
                "id": run,
                "name": run,
                "displayName": given.get("displayName"),
                "config": "{}",
                "project": project,
            }
            return {"upsertBucket": {"bucket": bucket, "inserted": new}}
        if operation == "RunResumeStatus":
            rows, bucket = self.history(run), None
            if run in self.runs:
                bucket = {"id": run, "name": run, "displayName": run, "historyLineCount": len(rows), "tags": []}
                bucket |= {"logLineCount": 0, "eventsLineCount": 0, "eventsTail": "[]", "config": "{}"}
                bucket |= {"historyTail": json.dumps([json.dumps(row) for row in rows[-1:]])}
                bucket |= {"summaryMetrics": self._summaries.get(run, "{}"), "wandbConfig": json.dumps({"t": 1})}
            return {"model": project | {"bucket": bucket}}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in given["files"]]
            return {"createRunFiles": {"runID": "run", "uploadHeaders": [], "files": files}}
        if operation == "ArtifactType":
            return {"project": None}
        if operation == "CreateArtifact":
            artifact = {"id": "a", "state": "COMMITTED", "artifactSequence": {"id": "s", "latestArtifact": None}}
            return {"createArtifact": {"artifact": artifact}}
        return self._answer_view(operation, given)

    def _answer_view(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        if "spec" in given:
            self.views.append(given)
            view = {"id": given.get("id") or f"view{len(self.views)}", "name": given.get("name"), "type": "runs"}
            view |= {"displayName": given.get("displayName"), "spec": given["spec"], "description": ""}
            view |= {"project": {"id": "p", "name": given["projectName"], "entityName": given["entityName"]}}
            view |= {"updatedAt": None, "createdAt": None}
            return {"upsertView": {"view": view, "inserted": True}}
        if "projectName" in given:
            return {"project": {"internalId": "cA==", "id": "p", "name": given["projectName"]}}
        return {"models": {"edges": [], "pageInfo": {"hasNextPage": False, "endCursor": None}}}

    def _handler(server) -> type[BaseHTTPRequestHandler]:  # noqa: N805  `self` is the handler's
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def handle(self) -> None:
                with contextlib.suppress(OSError):  # the other side has closed
                    super().handle()

            def body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)

            def reply(self, value: Any) -> None:
                if server.silent:
                    self.close_connection = True
                    return
                content = json.dumps(value).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_GET(self) -> None:
                self.reply({})

            def do_PUT(self) -> None:
                self.body()
                self.reply({})

            def do_POST(self) -> None:
                content = self.body()
                if not self.path.endswith(("graphql", "file_stream")):  # telemetry
                    self.reply({})
                    return
                body = json.loads(content)
                if self.path.endswith("file_stream"):
                    if not server.silent:
                        server._stream(self.path, body)
                    self.reply({"exitcode": None, "limits": {}})
                    return
                found = re.search(r"(?:query|mutation)\s+(\w+)", body.get("query", ""))
                operation = found[1] if found else ""
                server.calls.append(operation)
                self.reply({"data": server._answer(operation, body.get("variables") or {})})
                server.silent |= operation == server.silent_after

        return Handler
