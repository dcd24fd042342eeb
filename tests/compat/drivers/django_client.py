"""Django's ORM and migrations on psycopg. Prints one JSON object: step → what was seen."""

import json
import os
import sys

import django
from django.conf import settings

settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql", "NAME": os.environ["PGDATABASE"], "USER": os.environ["PGUSER"],
            "PASSWORD": os.environ["PGPASSWORD"], "HOST": os.environ["PGHOST"], "PORT": os.environ["PGPORT"],
        }
    },
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField", USE_TZ=True,
)  # fmt: skip
django.setup()

from django.contrib.auth.models import Group, User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import DatabaseError, IntegrityError, connection, transaction  # noqa: E402

seen: dict[str, object] = {}
notices: list[str] = []


def error_of(error: Exception) -> list[object]:
    d = error.__cause__.diag
    return [type(error).__name__, d.sqlstate, d.message_primary, d.message_detail, d.message_hint]


def work() -> None:
    call_command("migrate", verbosity=0)
    group = Group.objects.create(name="g")
    for index in range(40):
        User.objects.create(username=f"u{index}", email=f"{index}@x").groups.add(group)
    seen["joined"] = list(User.objects.filter(groups__name="g", username__startswith="u3").values_list("username").order_by("id"))
    try:
        with transaction.atomic():
            User.objects.create(username="u1")
    except IntegrityError as error:
        seen["unique"] = error_of(error)
    with transaction.atomic():
        seen["locked"] = User.objects.select_for_update().get(username="u2").email
    seen["iterated"] = sum(user.pk for user in User.objects.iterator(chunk_size=7))
    User.objects.bulk_update([*User.objects.all()], ["last_name"])
    seen["deleted"] = User.objects.filter(username__gt="u3").delete()
    seen["tables"] = sorted(connection.introspection.table_names())
    call_command("migrate", "auth", "zero", verbosity=0)


def everyday() -> None:
    for step, sql in json.loads(sys.argv[2]):
        connection.ensure_connection()
        connection.connection.add_notice_handler(lambda d: notices.append(f"{d.severity}: {d.message_primary}"))
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql)
                seen[step] = [list(map(str, row)) for row in cursor.fetchall()] if cursor.description else cursor.rowcount
        except DatabaseError as error:
            seen[step] = error_of(error)
        connection.close()


work() if sys.argv[1] == "work" else everyday()
seen["notices"] = notices
print(json.dumps(seen, default=str))
