"""The caller of a request: tenant, rights, and whose resources the request is about."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from pydantic import TypeAdapter, ValidationError

from registry.tenants import DEFAULT_TENANT, TenantName
from services.api.http.errors import ApiError, invalid
from services.api.keys import KeyRecord

log = logging.getLogger(__name__)

ALL_TENANTS = "*"


@dataclass(frozen=True)
class Caller:
    """Whose key came with a request. Where the service has no keys, every caller is an operator of the tenant `default`."""

    tenant: str = DEFAULT_TENANT
    """Whose key it is, and whose requests are counted."""
    operator: bool = True
    key: str | None = None
    """The key's id."""
    scope: str | None = DEFAULT_TENANT
    """The tenant whose resources the request is about; None: all tenants'."""

    @classmethod
    def of(cls, record: KeyRecord) -> Caller:
        """Return the caller with this key, about its tenant's own resources."""
        return cls(record.tenant, record.operator, record.id, record.tenant)

    @property
    def viewer(self) -> str:
        """The tenant by whose names the response calls models."""
        return self.scope or self.tenant

    def about(self, tenant: str | None) -> Caller:
        """Return the same caller about another tenant's resources, or all tenants': an operator's right.

        Raises:
            ApiError: 403 the key is a tenant's; 422 that is no tenant's name.
        """
        if tenant is None:
            return self
        if not self.operator:
            raise ApiError(
                403, "forbidden", "Only an operator's key may name a tenant: leave `tenant` out, your key says whose you are."
            )
        if tenant == ALL_TENANTS:
            return replace(self, scope=None)
        try:
            return replace(self, scope=TypeAdapter(TenantName).validate_python(tenant))
        except ValidationError as error:
            detail = f"{tenant!r} is no tenant's name: give a name as `tav keys list` shows it, or '*' for all tenants."
            raise invalid(detail, "tenant") from error

    def owner(self) -> str:
        """Return the tenant that is to own what the request creates.

        Raises:
            ApiError: 422, the request is about all tenants.
        """
        if self.scope is None:
            raise invalid("What is made belongs to one tenant: name it with `tenant`, or leave that out.", "tenant")
        return self.scope

    def audit(self, action: str, owner: str) -> None:
        """Log what this caller did to a tenant's resource, for the audit; the record has the time and the request's id."""
        who = f"key {self.key} of {self.tenant}" if self.key else "a caller without a key"
        log.info("audit: %s %s of %s", who, action, owner)
