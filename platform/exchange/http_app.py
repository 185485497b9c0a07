"""The HTTP side of `parsec serve`.

    POST   /sessions                  begin an episode          {"seed": 0}
    POST   /sessions/NAME/act         decide                    {"observation": ..., "first": false}
    DELETE /sessions/NAME             end
    GET    /agent                     spaces, task, limits
    GET    /health                    without a token
    GET    /metrics                   in Prometheus' text format
    GET    /openapi.json              the schema of all of these, without a token

Every error is {"error": one sentence}.
"""

from __future__ import annotations

import hmac
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException as AnyHTTPException

from parsecrl.platform.exchange.sessions import SessionBusy, SessionGone, SessionsFull

STATUS = {ValueError: 400, SessionGone: 404, SessionBusy: 409, SessionsFull: 503}


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SessionRequest(_Body):
    """An episode to begin."""

    seed: int = Field(0, ge=0, lt=2**63, description="of the planner's candidates: the same seed, the same decisions")


class SessionAnswer(BaseModel):
    """An episode that has begun."""

    session: str = Field(description="its name, for the address of the next requests")
    idle_s: float = Field(description="seconds without a decision after which the session is forgotten")


class ActRequest(_Body):
    """An observation to decide on."""

    observation: Any = Field(description="as the task returns it: nested lists for arrays, an object for a Dict space")
    first: bool = Field(False, description="the observation begins a new episode: forget what came before")


class ActAnswer(BaseModel):
    """A decision."""

    action: Any = Field(description="as the task takes it: nested lists for an array, a number for a Discrete space")
    decision: int = Field(description="its number in the session, from 0")


class Failure(BaseModel):
    """What went wrong."""

    error: str = Field(description="one sentence")


FAILURES: dict[int | str, dict[str, Any]] = {
    400: {"model": Failure, "description": "a bad request"},
    401: {"model": Failure, "description": "no token, or another one"},
    404: {"model": Failure, "description": "no such session"},
    409: {"model": Failure, "description": "the session decides already"},
    503: {"model": Failure, "description": "beyond capacity; Retry-After says when to try again"},
}


def make_app(service: Any, token: str) -> FastAPI:
    """The application around a service.

    Args:
        service: An `AgentService`.
        token: That requests must show.

    Returns:
        The application. Its pages for people are left out: both load parts from elsewhere.
    """

    def check(authorization: Annotated[str | None, Header()] = None) -> None:
        kind, _, shown = (authorization or "").partition(" ")
        if kind != "Bearer" or not hmac.compare_digest(shown.encode(), token.encode()):
            raise HTTPException(401, "the header Authorization must be Bearer TOKEN, this service's; see --token-file")

    app = FastAPI(title="parsec serve", docs_url=None, redoc_url=None, responses=FAILURES)
    private: Any = {"dependencies": [Depends(check)]}

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/agent", **private)
    async def agent() -> dict[str, Any]:
        return service.describe()

    @app.get("/metrics", **private)
    async def metrics() -> Response:
        return Response(service.measured(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.post("/sessions", status_code=201, **private)
    async def begin(body: SessionRequest | None = None) -> SessionAnswer:
        name = service.begin(body.seed if body else 0)
        return SessionAnswer(session=name, idle_s=service.limits.session_idle_s)

    @app.delete("/sessions/{session}", status_code=204, **private)
    async def end(session: str) -> None:
        service.sessions.end(session)

    @app.post("/sessions/{session}/act", **private)
    async def act(session: str, body: ActRequest) -> ActAnswer:
        action, decision = await service.act(session, body.observation, body.first)
        return ActAnswer(action=action, decision=decision)

    for kind in STATUS:
        app.exception_handler(kind)(_say)
    app.exception_handler(AnyHTTPException)(_say_status)
    app.exception_handler(RequestValidationError)(_say_invalid)
    return app


async def _say(request: Request, error: Exception) -> JSONResponse:
    status = next(code for kind, code in STATUS.items() if isinstance(error, kind))
    return JSONResponse(
        {"error": " ".join(str(error).split())}, status, {"Retry-After": "1"} if status == 503 else None
    )


async def _say_status(request: Request, error: Any) -> JSONResponse:
    return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)


async def _say_invalid(request: Request, error: Any) -> JSONResponse:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body") or "the body"
    return JSONResponse({"error": f"{where}: {first['msg']}; see /openapi.json for what a request holds"}, 400)
