"""Who makes a request, and whose things it is about."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Depends, Query, Request
from pydantic import TypeAdapter, ValidationError

from registry.tenants import DEFAULT_TENANT
from services.api.http.errors import ApiError, invalid
from services.api.keys import KeyRecord, TenantName

log = logging.getLogger(__name__)

EVERYBODY = "*"


@dataclass(frozen=True)
class Caller:
    """Whose key came with a request. Where no key is asked for everybody is the operator, of the tenant `default`."""

    tenant: str = DEFAULT_TENANT
    """Whose key it is, and whose requests are counted."""
    operator: bool = True
    key: str | None = None
    """The key's id."""
    scope: str | None = DEFAULT_TENANT
    """Whose things the request is about; None: everybody's."""

    @classmethod
    def of(cls, record: KeyRecord) -> Caller:
        """Whoever has the key, about its tenant's own things."""
        return cls(record.tenant, record.operator, record.id, record.tenant)

    @property
    def viewer(self) -> str:
        """Whose names models have in the answer."""
        return self.scope or self.tenant

    def about(self, tenant: str | None) -> Caller:
        """The same about another tenant's things, or about everybody's: an operator's right.

        Raises:
            ApiError: 403 the key is a tenant's; 422 that is no tenant's name.
        """
        if tenant is None:
            return self
        if not self.operator:
            raise ApiError(
                403, "forbidden", "Only an operator's key may name a tenant: leave `tenant` out, your key says whose you are."
            )
        if tenant == EVERYBODY:
            return replace(self, scope=None)
        try:
            return replace(self, scope=TypeAdapter(TenantName).validate_python(tenant))
        except ValidationError as error:
            detail = f"{tenant!r} is no tenant's name: give a name as `tav keys list` shows it, or '*' for all tenants."
            raise invalid(detail, "tenant") from error

    def one(self) -> str:
        """Whose a thing shall be that the request makes.

        Raises:
            ApiError: 422, it is about everybody's.
        """
        if self.scope is None:
            raise invalid("What is made belongs to one tenant: name it with `tenant`, or leave that out.", "tenant")
        return self.scope

    def did(self, what: str, owner: str) -> None:
        """Leave an audit line: what was done to whose things, by whom; the log says when, and for which request."""
        who = f"key {self.key} of {self.tenant}" if self.key else "a caller without a key"
        log.info("audit: %s %s of %s", who, what, owner)


def _caller(
    request: Request,
    tenant: Annotated[
        str | None,
        Query(
            description="For operators' keys: whose things, by the tenant's name, or `*` for all tenants'.",
            max_length=64,
            json_schema_extra={"pattern": r"^(\*|[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?)$"},
        ),
    ] = None,
) -> Caller:
    caller: Caller = request.state.caller  # the doorkeeper has looked at `tenant` already, on every call
    return caller


Who = Annotated[Caller, Depends(_caller)]
"""Who makes the request."""
