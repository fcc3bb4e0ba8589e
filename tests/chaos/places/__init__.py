"""Where a run takes place: a store of its own, its line, its death, and the inspection of its data."""

from tests.chaos.places.place import Place
from tests.chaos.places.postgres import Postgres
from tests.chaos.places.sqlite import Sqlite
from tests.chaos.places.valkey import Valkey

PLACES: dict[str, type[Place]] = {place.name: place for place in (Sqlite, Postgres, Valkey)}
