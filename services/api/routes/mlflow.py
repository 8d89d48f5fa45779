"""/mlflow: MLflow's pages and API, for operators."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse

from services.api.deps import MlflowProxyDep, authenticate_operator

router = APIRouter(prefix="/mlflow", include_in_schema=False, dependencies=[Depends(authenticate_operator)])


@router.get("")
def redirect_to_runs(proxy: MlflowProxyDep) -> Response:
    """Redirect to the list of runs."""
    return RedirectResponse(proxy.runs_page())


@router.api_route("/{path:path}", methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
async def forward(request: Request, path: str, proxy: MlflowProxyDep) -> Response:
    """Forward everything else."""
    return await proxy.forward(request, path)
