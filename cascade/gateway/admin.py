"""The admin pages: what is served and why, past decisions, and the switches.

FastAPI, because nobody is in a hurry here. Whoever reaches it has shown the admin key; its own
documentation is at ``/admin/docs``.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import Body, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from cascade import reasons
from cascade.certify import Certificate, Watch
from cascade.errors import CascadeError, RegistryError
from cascade.gateway.console import checks_of, flow_of
from cascade.gateway.lanes import Lane
from cascade.gateway.refusals import Refusal, bad_request, refusal_of
from cascade.gateway.replay import audit_of
from cascade.gateway.services import Running, Services
from cascade.gateway.tenants import Tenant
from cascade.registry import CHAMPION

MOST_DECISIONS = 1000
MOST_CHECKS = 500

Name = Annotated[str, Body(embed=True)]
Why = Annotated[str, Body(embed=True, max_length=500)]


def create_admin(services: Services, running: Running) -> FastAPI:
    """The application behind ``/admin``."""
    app = FastAPI(
        title="Cascade admin",
        docs_url="/admin/docs",
        redoc_url=None,
        openapi_url="/admin/openapi.json",
    )
    _shape_errors(app)
    _add_views(app, services, running)
    _add_switches(app, services)
    return app


def _add_views(app: FastAPI, services: Services, running: Running) -> None:
    @app.get("/admin/status")
    async def status() -> dict[str, Any]:
        """Every task: which champion, in use or not, and why not."""
        await running.ready()
        problems = services.follower.problems() if services.follower else {}
        names = services.lanes.names()
        return {
            "off": services.lanes.off,
            "tiers": running.answering,
            "configuration": services.reload.status() if services.reload else None,
            "tasks": {name: _task_status(services, name, problems.get(name)) for name in names},
        }

    @app.get("/admin/certificates")
    def certificates() -> dict[str, Any]:
        """The certificate of every champion in use."""
        lanes = {name: services.lanes.get(name) for name in services.lanes.names()}
        return {name: _certificate(lane) for name, lane in lanes.items() if lane}

    @app.get("/admin/decisions")
    def decisions(
        limit: Annotated[int, Query(ge=1, le=MOST_DECISIONS)] = 100,
        task: str | None = None,
        tenant: str | None = None,
    ) -> list[Any]:
        """The newest decisions; of a tenant with everything below it."""
        found = _store(services).recent(limit, task, tenant=tenant)
        return [msgspec.to_builtins(one) for one in found]

    @app.get("/admin/tenants")
    async def tenants() -> dict[str, Any]:
        """Every holder of a key: what it may ask (null is all), its limits, today's dollars."""
        return {one.name: _tenant_status(services, one) for one in services.tenants}

    @app.get("/admin/decisions/{id}")
    def decision(id: str) -> Any:
        """One decision by its ``x-cascade-decision-id``, replayed: what each tier said, what it
        would have taken, the reason, and the teacher's word where it was audited (null if not).
        It may take a second to appear."""
        found = _store(services).get(id)
        if found is None:
            raise Refusal(404, "decision_not_found", f"there is no decision {id[:100]!r}")
        audit = _store(services).get(audit_of(id))
        return {**msgspec.to_builtins(found), "audit": msgspec.to_builtins(audit)}

    @app.get("/admin/overview")
    def overview(
        task: str, limit: Annotated[int, Query(ge=1, le=MOST_DECISIONS)] = MOST_DECISIONS
    ) -> Any:
        """What the console shows of a task, from its newest decisions."""
        lane, store = _known(services, task), _store(services)
        docket = services.auditor.docket(task)
        audits = services.audits.settled(task, MOST_CHECKS) if services.audits else []
        return {
            "teacher": lane.teacher,
            "bound": docket.agreement_lower_bound if docket else None,
            "flow": msgspec.to_builtins(flow_of(store.recent(limit, task), [*lane.router.tiers])),
            "checks": msgspec.to_builtins(checks_of(audits)),
        }


def _add_switches(app: FastAPI, services: Services) -> None:
    lanes = services.lanes

    @app.post("/admin/promote")
    def promote(task: Name, version: Name) -> dict[str, Any]:
        """Make a registered version the champion, and serve it."""
        _known(services, task)
        if services.registry is None or services.follower is None:
            raise Refusal(409, "no_registry", "this gateway follows no registry")
        services.registry.promote(task, version, CHAMPION)
        services.follower.poll()
        return _task_status(services, task, services.follower.problems().get(task))

    @app.post("/admin/demote")
    def demote(task: Name, why: Why = "by an operator") -> dict[str, Any]:
        """From now on the teacher answers, until another version comes or it is reinstated."""
        _known(services, task)
        if services.lanes.installed(task).version is None:
            raise Refusal(409, "no_champion", f"task {task} has no champion to demote")
        lanes.demote(task, why)
        return _task_status(services, task, None)

    @app.post("/admin/reinstate")
    def reinstate(task: Name) -> dict[str, Any]:
        """Undo ``demote``. What the monitor took out, only a new certificate brings back."""
        _known(services, task)
        taken_out = lanes.installed(task)
        if taken_out.reason == reasons.DEMOTED:
            message = f"{taken_out.detail}: run 'cascade certify' and promote what passes"
            raise Refusal(409, "needs_certificate", message)
        lanes.reinstate(task)
        return _task_status(services, task, None)

    @app.post("/admin/off")
    def off(why: Why = "by an operator") -> dict[str, Any]:
        """The teacher answers every task."""
        lanes.switch_off(why)
        return {"off": lanes.off}

    @app.post("/admin/on")
    def on() -> dict[str, Any]:
        """Undo ``off``."""
        lanes.switch_on()
        return {"off": lanes.off}


def _task_status(services: Services, task: str, problem: str | None) -> dict[str, Any]:
    lane = _known(services, task)
    docket = services.auditor.docket(task)
    return {
        "version": lane.version,
        "in_use": lane.version is not None and not lane.reason,
        "reason": lane.reason,
        "detail": lane.detail,
        "problem": problem,
        "tiers": dict(lane.models),
        "promise": _promise(lane.certificate) if lane.certificate else None,
        "watch": _watch_status(docket.watch, len(lane.rungs)) if docket else None,
    }


def _tenant_status(services: Services, tenant: Tenant) -> dict[str, Any]:
    return {
        "tasks": None if tenant.tasks is None else sorted(tenant.tasks),
        "requests_a_minute": tenant.bucket.per_minute if tenant.bucket else None,
        "dollars_a_day": tenant.spend,
        "dollars_today": services.tenants.spending.today(tenant.name),
    }


def _promise(certificate: Certificate) -> dict[str, Any]:
    """``thresholds``: at which confidence who may answer; ``tier:label`` is for that label, and
    above 1 is never."""
    return {
        "metric": certificate.metric,
        "target": certificate.target,
        "delta": certificate.delta,
        "thresholds": certificate.thresholds,
    }


def _watch_status(watch: Watch, rungs: int) -> dict[str, Any]:
    """``rung``: the one that serves, from 0, the most careful of ``rungs``; null is the teacher."""
    monitor = watch.monitor
    return {
        "version": watch.version,
        "rung": watch.rung,
        "rungs": rungs,
        "falls": watch.falls,
        "steps": msgspec.to_builtins(watch.steps),
        "requests": monitor.requests,
        "audits": monitor.audits,
        "evidence_of_harm": monitor.evidence,
        "looking_closer": monitor.uneasy or watch.novelty.roused,
    }


def _certificate(lane: Lane) -> Any:
    """The claim without its evidence, which is long and is in the artifact."""
    if lane.certificate is None:
        return None
    claim = msgspec.to_builtins(lane.certificate)
    del claim["evidence"]
    return claim


def _known(services: Services, task: str) -> Lane:
    lane = services.lanes.get(task)
    if lane is None:
        known = ", ".join(services.lanes.names())
        message = f"there is no task {task[:100]!r}; there are: {known}"
        raise Refusal(404, "model_not_found", message, param="task")
    return lane


def _store(services: Services) -> Any:
    if services.decisions is None:
        raise Refusal(404, "no_store", "this gateway keeps no decisions")
    return services.decisions


def _shape_errors(app: FastAPI) -> None:
    """Errors in OpenAI's shape here too."""

    @app.exception_handler(Refusal)
    async def refused(request: Request, error: Refusal) -> Response:
        return _error(error)

    @app.exception_handler(CascadeError)
    async def failed(request: Request, error: CascadeError) -> Response:
        conflict = isinstance(error, RegistryError)
        return _error(Refusal(409, "registry", str(error)) if conflict else refusal_of(error))

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return _error(bad_request(f"{where}: {first['msg']}", param=where))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "error")
        return _error(Refusal(error.status_code, code, str(error.detail)))


def _error(refusal: Refusal) -> Response:
    return JSONResponse(msgspec.json.decode(refusal.body), refusal.status)
