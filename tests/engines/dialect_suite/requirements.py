"""What SQLite can do, and the suite is to try."""

from sqlalchemy.testing import exclusions
from sqlalchemy.testing.requirements import SuiteRequirements

OPEN = [
    "array_type",
    "autocommit",
    "ctes",
    "ctes_on_dml",
    "ctes_with_update_delete",
    "datetime_literals",
    "datetime_microseconds",
    "delete_returning",
    "dialect_level_isolation_level_param",
    "empty_inserts_executemany",
    "emulated_lastrowid",
    "foreign_key_constraint_option_reflection_ondelete",
    "get_isolation_level_values",
    "insert_executemany_returning",
    "insert_from_select",
    "insert_returning",
    "isolation_level",
    "json_type",
    "multivalues_inserts",
    "on_update_cascade",
    "order_by_label_with_expression",
    "precision_numerics_enotation_large",
    "savepoints",
    "server_side_cursors",
    "skip_autocommit_rollback",
    "temporary_tables",
    "unicode_ddl",
    "update_from",
    "update_returning",
    "views",
    "window_functions",
]


class Requirements(SuiteRequirements):
    """The suite's defaults, and all of OPEN."""

    # A database in memory is one connection.
    independent_connections = property(lambda self: exclusions.closed())

    def get_isolation_levels(self, config: object) -> dict[str, object]:
        """Return the levels that SQLite has."""
        return {"default": "SERIALIZABLE", "supported": ["READ UNCOMMITTED", "SERIALIZABLE", "AUTOCOMMIT"]}


for name in OPEN:
    setattr(Requirements, name, property(lambda self: exclusions.open()))
