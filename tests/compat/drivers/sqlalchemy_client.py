"""SQLAlchemy's ORM and Core on psycopg. Prints one JSON object: step → what was seen."""

import json
import sys

from sqlalchemy import ForeignKey, create_engine, func, inspect, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

seen: dict[str, object] = {}
notices: list[str] = []


class Base(DeclarativeBase):
    pass


class Owner(Base):
    __tablename__ = "owner"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    pets: Mapped[list["Pet"]] = relationship(back_populates="owner", cascade="all, delete-orphan")


class Pet(Base):
    __tablename__ = "pet"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"))
    owner: Mapped[Owner] = relationship(back_populates="pets")


def error_of(error: DBAPIError) -> list[object]:
    d = error.orig.diag
    return [type(error).__name__, d.sqlstate, d.message_primary, d.message_detail, d.message_hint]


engine = create_engine(sys.argv[3] if len(sys.argv) > 3 else "postgresql+psycopg://")


def work() -> None:
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Owner(name=f"o{i}", pets=[Pet(name=f"p{i}{j}") for j in range(5)]) for i in range(50)])
        session.commit()
        seen["join"] = (
            session.execute(select(Owner.name, func.count(Pet.id)).join(Pet).group_by(Owner.name).order_by(Owner.name).limit(3))
            .all()
            .__repr__()
        )
        session.add(Owner(name="o1"))
        try:
            session.flush()
        except DBAPIError as error:
            seen["unique"] = error_of(error)
            session.rollback()
        owner = session.scalars(select(Owner).where(Owner.name == "o7")).one()
        session.delete(owner)
        session.commit()
        seen["left"] = session.scalar(select(func.count()).select_from(Pet))
    looking = inspect(engine)
    seen["reflected"] = [
        looking.get_table_names(), [c["name"] for c in looking.get_columns("pet")], looking.get_foreign_keys("pet"),
        looking.get_indexes("owner"), looking.get_pk_constraint("pet"),
    ]  # fmt: skip
    Base.metadata.drop_all(engine)


def everyday() -> None:
    for step, sql in json.loads(sys.argv[2]):
        with engine.connect() as connection:
            raw = connection.connection.driver_connection
            raw.add_notice_handler(lambda d: notices.append(f"{d.severity}: {d.message_primary}"))
            try:
                result = connection.execute(text(sql))
                seen[step] = [list(map(str, row)) for row in result] if result.returns_rows else result.rowcount
                connection.commit()
            except DBAPIError as error:
                seen[step] = error_of(error)


work() if sys.argv[1] == "work" else everyday()
seen["notices"] = notices
print(json.dumps(seen, default=str))
