"""Who of the directory is who in Teams: accounts (tenant, Entra object id), and the Teams ids that the service gave them.

Teams ids (29:…) are learned from the service alone, kept in memory, and only say whom a card is drawn for and whom to write
to. They never carry authority: who answers is asked of the service at each answer (property 2).
"""

from __future__ import annotations

from dataclasses import dataclass

from interlock.approvals.channels.teams.transport import Member
from interlock.approvals.electorate import Electorate
from interlock.approvals.model import ApprovalRequest
from interlock.identity.directory import Directory
from interlock.identity.entries import Entry
from interlock.identity.principal import Kind

PEOPLE = frozenset(("user", "owner", "admin"))
"""Roles of a member that are people of the tenant. A guest, an anonymous participant or a bot is none."""

MAX_KNOWN = 10_000


@dataclass(frozen=True, slots=True)
class Account:
    """A person of a tenant, as Entra names them."""

    tenant: str
    oid: str

    @classmethod
    def of(cls, tenant: str, oid: str) -> Account:
        """Entra writes these in any case; we compare one."""
        return cls(tenant.lower(), oid.lower())

    def __str__(self) -> str:
        return f"{self.tenant}/{self.oid}"


def confirms(member: Member, account: Account, ident: str = "") -> bool:
    """Whether the service says that a member is this account, and a person of the tenant. What it leaves out is a no."""
    return (
        account.oid != ""
        and Account.of(member.tenant, member.oid) == account
        and member.role in PEOPLE
        and member.id != ""
        and ident in ("", member.id)
    )


class Roster:
    """Reads the directory anew each time; remembers only what Teams calls whom."""

    def __init__(self, directory: Directory, electorate: Electorate) -> None:
        self._directory = directory
        self._electorate = electorate
        self._idents: dict[Account, str] = {}

    def entry(self, account: Account) -> Entry | None:
        """Return the one registered principal of an account."""
        return self._directory.by_teams(account.tenant, account.oid)

    def accounts(self, entry: Entry) -> tuple[Account, ...]:
        return tuple(Account.of(tenant, oid) for tenant, oid in entry.teams)

    def ident(self, account: Account) -> str:
        """Return the Teams id of an account, or an empty string."""
        return self._idents.get(account, "")

    def learn(self, account: Account, ident: str) -> None:
        if len(self._idents) >= MAX_KNOWN:
            self._idents.clear()  # learned again as people come
        self._idents[account] = ident

    def reviewers(self, request: ApprovalRequest) -> tuple[Account, ...]:
        """Return the accounts of everybody who may answer a request as of now."""
        return tuple(a for entry, may in self._concerned(request) if may for a in self.accounts(entry))

    def viewers(self, request: ApprovalRequest) -> tuple[Account, ...]:
        """Return the accounts of everybody who is to see a view of their own: who may answer first, then who may not."""
        concerned = sorted(self._concerned(request), key=lambda found: not found[1])
        return tuple(a for entry, _ in concerned for a in self.accounts(entry))

    def _concerned(self, request: ApprovalRequest) -> list[tuple[Entry, bool]]:
        groups = frozenset(request.draft.terms.all_groups)
        barred = request.excluded | self._electorate.excluded(request.draft)
        found = []
        for entry in self._directory.entries():
            if entry.kind is not Kind.HUMAN or entry.disabled or not entry.teams:
                continue
            excluded = bool(({entry.identity} | entry.linked) & barred)
            if excluded or entry.groups & groups:
                found.append((entry, not excluded))
        return found
