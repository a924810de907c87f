"""The gateway as an ASGI application: find the route, check the key, answer, say what went wrong.

Raw ASGI: nothing here builds a model of the request. FastAPI serves ``/admin`` alone. The life of
a request: headers -> request id -> key -> body -> route -> answer, or a refusal; all the while
somebody listens whether the caller is still there.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST

from cascade.errors import CascadeError
from cascade.gateway import wire
from cascade.gateway.admin import create_admin
from cascade.gateway.chat import TypedChat
from cascade.gateway.console import HTML, Page, load_page
from cascade.gateway.http import (
    Disconnected,
    Receive,
    Reply,
    Request,
    Response,
    Scope,
    Send,
    given_id,
    read_body,
    read_headers,
    send_response,
    send_stream,
    unless_gone,
)
from cascade.gateway.lanes import Lane
from cascade.gateway.passthrough import PassThrough
from cascade.gateway.predict import Predict
from cascade.gateway.refusals import Refusal, refusal_of, unknown_model
from cascade.gateway.services import Running, Services
from cascade.gateway.standing import Standing
from cascade.gateway.tenants import ANYONE, Tenant

logger = logging.getLogger(__name__)

TASK = "task/"
TASKS, PREDICT = "/v1/tasks/", "/predict"
ADMIN = "/admin"
OPEN = frozenset({"/health", "/ready", "/metrics", "/console"})
"""Paths that need no key: load balancers and Prometheus have none, and a browser sends none when it
opens a page. The console asks its reader for the admin key."""

Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Route = Callable[[Request], Awaitable[Reply]]


class Gateway:
    """``create_app`` makes one; see there."""

    def __init__(
        self, services: Services, admin: Application, running: Running, console: Page
    ) -> None:
        books = services.books
        self._ids = books.ids
        self._services = services
        self._admin = admin
        self._running = running
        self._console = console
        self._typed = TypedChat(books)
        self._through = PassThrough(services.models, books)
        self._batches = Predict(books)
        self._predict = self._watched(self._predict_task)
        self._routes: Mapping[str, Mapping[str, Route]] = {
            "/v1/chat/completions": {"POST": self._watched(self._chat)},
            "/v1/models": {"GET": self._list_models},
            "/health": {"GET": self._health},
            "/ready": {"GET": self._ready},
            "/metrics": {"GET": self._metrics},
            "/console": {"GET": self._show_console},
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        if scope["type"] == "http":
            await self._exchange(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _exchange(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = read_headers(scope)
        id = given_id(headers) or self._ids.new("req")
        sender = Sender(send, {"x-request-id": id})
        try:
            await self._serve(scope, receive, sender, headers)
        except Disconnected:
            logger.debug("request %s: the caller left", id)
        except Exception as exc:
            refusal = _explain(exc, id)
            self._services.metrics.errors.of(str(refusal.status), refusal.code).inc()
            if sender.begun:  # too late for a status: a broken answer must not look complete
                raise
            await sender.reply(Response(refusal.body, refusal.status, refusal.headers))

    async def _serve(
        self, scope: Scope, receive: Receive, sender: Sender, headers: Mapping[str, str]
    ) -> None:
        path = scope["path"]
        if path == ADMIN or path.startswith(ADMIN + "/"):
            self._check_admin(headers)
            await self._admin(scope, receive, sender.send)
            return
        tenant = ANYONE if path in OPEN else self._admit(headers, sender)
        route = self._route(scope["method"], path)
        body = await read_body(receive, headers, self._services.listen.body_bytes)
        request = Request(scope["method"], path, headers, body, sender.request_id, tenant)
        await unless_gone(_respond(route, request, sender), receive)

    def _admit(self, headers: Mapping[str, str], sender: Sender) -> Tenant:
        tenant = self._services.tenants.find(headers)
        sender.add(self._services.tenants.admit(tenant))
        return tenant

    def _check_admin(self, headers: Mapping[str, str]) -> None:
        self._need_admin()
        self._services.admin_keys.check(headers)

    def _need_admin(self) -> None:
        if not self._services.admin_keys:
            message = "the admin pages are off: set `admin_key` in gateway.yaml"
            raise Refusal(403, "admin_disabled", message)

    def _route(self, method: str, path: str) -> Route:
        methods = self._routes.get(path)
        if methods is None and path.startswith(TASKS) and path.endswith(PREDICT):
            methods = {"POST": self._predict}
        if methods is None:
            raise Refusal(404, "not_found", f"there is no {path[:200]!r} here; see GET /v1/models")
        if method not in methods:
            allow = ", ".join(methods)
            message = f"{path} takes {allow}, not {method[:20]}"
            raise Refusal(405, "method_not_allowed", message, headers={"allow": allow})
        return methods[method]

    def _watched(self, route: Route) -> Route:
        tracing = self._services.tracing
        return route if tracing is None else tracing.around(route)

    async def _chat(self, request: Request) -> Reply:
        fields = wire.read_fields(request.body)
        name = fields["model"]
        if name.startswith(TASK):
            lane = self._lane(name.removeprefix(TASK), name, request.tenant)
            return await self._typed.answer(request, fields, lane)
        model = self._through.find(name)
        if model is None or not request.tenant.may(model.tier, model.model):
            raise unknown_model(name, self._names(request.tenant))
        return await self._through.answer(request, fields, model)

    async def _predict_task(self, request: Request) -> Reply:
        name = request.path[len(TASKS) : -len(PREDICT)]
        return await self._batches.answer(request, self._lane(name, name, request.tenant))

    def _lane(self, task: str, asked: str, tenant: Tenant) -> Lane:
        lane = self._services.lanes.get(task)
        # what a tenant may not ask does not exist for it: a 403 would tell the names of others
        if lane is None or not tenant.may(TASK + task):
            raise unknown_model(asked, self._names(tenant))
        return lane

    def _names(self, tenant: Tenant) -> list[str]:
        """Everything that its ``model`` may be, each once."""
        tasks = [TASK + task for task in self._services.lanes.names() if tenant.may(TASK + task)]
        models = [one for one in self._services.models if tenant.may(one.tier, one.model)]
        tiers = [one.tier for one in models]
        return list(dict.fromkeys(tasks + tiers + [one.model for one in models]))

    async def _list_models(self, request: Request) -> Reply:
        listed = [
            {"id": name, "object": "model", "created": 0, "owned_by": "cascade"}
            for name in self._names(request.tenant)
        ]
        return Response(msgspec.json.encode({"object": "list", "data": listed}))

    async def _health(self, request: Request) -> Reply:
        return Response(b'{"status":"ok"}')

    async def _ready(self, request: Request) -> Reply:
        ready = await self._running.ready()
        tiers, tasks = self._running.answering, self._services.lanes.names()
        body = msgspec.json.encode({"ready": ready, "tiers": tiers, "tasks": tasks})
        return Response(body, 200 if ready else 503)

    async def _metrics(self, request: Request) -> Reply:
        await self._running.ready()  # every scrape learns which tiers answer
        return Response(self._services.metrics.page(), content_type=CONTENT_TYPE_LATEST)

    async def _show_console(self, request: Request) -> Reply:
        self._need_admin()
        return Response(self._console.body, headers=self._console.headers, content_type=HTML)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self._running.start()
        except CascadeError as exc:
            await send({"type": "lifespan.startup.failed", "message": str(exc)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._running.stop()
        await send({"type": "lifespan.shutdown.complete"})


class Sender:
    """The way back to one caller; ``headers`` go with whatever is sent."""

    def __init__(self, send: Send, headers: dict[str, str]) -> None:
        self.begun = False
        self._send = send
        self._headers = headers

    def add(self, headers: Mapping[str, str]) -> None:
        """Send these too."""
        self._headers.update(headers)

    @property
    def request_id(self) -> str:
        """The id that the caller will see."""
        return self._headers["x-request-id"]

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """An ASGI message of another application, with our headers added."""
        if message["type"] == "http.response.start":
            ours = [(name.encode(), value.encode()) for name, value in self._headers.items()]
            message = {**message, "headers": [*message.get("headers", ()), *ours]}
        await self._pass(message)

    async def reply(self, reply: Reply) -> None:
        """A whole answer or a stream."""
        if isinstance(reply, Response):
            await send_response(self._pass, reply, self._headers)
        else:
            await send_stream(self._pass, reply, self._headers)

    async def _pass(self, message: MutableMapping[str, Any]) -> None:
        self.begun = True
        await self._send(message)


async def _respond(route: Route, request: Request, sender: Sender) -> None:
    await sender.reply(await route(request))


def _explain(error: Exception, request_id: str) -> Refusal:
    """What the caller is told. A bug is told apart: it is logged with its trace, not shown."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, CascadeError):
        return refusal_of(error)
    logger.error("request %s failed", request_id, exc_info=error)
    message = f"something went wrong here; the log has it under request {request_id}"
    return Refusal(500, "internal_error", message)


def create_app(services: Services) -> Gateway:
    """The gateway made of these services, as an ASGI application.

    Starts nothing: the server's lifespan does. Endpoints, queues and tasks then belong to that
    server's event loop.
    """
    running = Running(services)
    services.metrics.registry.register(Standing(services.lanes, lambda: running.answering))
    return Gateway(services, create_admin(services, running), running, load_page())
