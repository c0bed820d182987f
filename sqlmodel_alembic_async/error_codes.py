"""The error codes of SQLite, PostgreSQL, MariaDB and MySQL, by kind of error."""

_Codes = set[str | int]

UNIQUE: _Codes = {"SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY", "SQLITE_CONSTRAINT_ROWID", "23505", 1062}
FOREIGN_KEY: _Codes = {"SQLITE_CONSTRAINT_FOREIGNKEY", "SQLITE_CONSTRAINT_TRIGGER", "23503", "23001", 1451, 1452}
NOT_NULL: _Codes = {"SQLITE_CONSTRAINT_NOTNULL", "23502", 1048, 1364}
CHECK: _Codes = {"SQLITE_CONSTRAINT_CHECK", "23514", 4025, 3819}
DOES_NOT_FIT: _Codes = (
    {"SQLITE_MISMATCH", "SQLITE_TOOBIG"}
    | {"22000", "22001", "22003", "22007", "22008", "22021", "22P02", "22P05"}
    | {1264, 1292, 1366, 1406}
)
SNAPSHOT: _Codes = {"SQLITE_BUSY_SNAPSHOT"}
CONFLICT: _Codes = (
    {"SQLITE_BUSY_RECOVERY", "SQLITE_LOCKED", "SQLITE_LOCKED_SHAREDCACHE"} | {"40001", "40P01"} | {1020, 1213, 3572}
)
LOCK_TIMEOUT: _Codes = {"SQLITE_BUSY", "SQLITE_BUSY_TIMEOUT", "55P03", 1205}
UNAVAILABLE: _Codes = (
    {"3D000", "53300", "57P01", "57P02", "57P03", "57P05"}
    | {1040, 1044, 1045, 1049, 1053, 1203, 1698, 1927}
    | {2002, 2003, 2006, 2013, 2055, 4031}
)
TABLE_MISSING: _Codes = {"42P01", 1146}
NO_RIGHT: _Codes = {"42501", 1142}
IN_USE: _Codes = {"2BP01"}

STORAGE: dict[str | int | None, str] = {
    "SQLITE_FULL": "the storage is full",
    "SQLITE_READONLY": "the database is read-only",
    "SQLITE_CORRUPT": "the database is corrupt",
    "SQLITE_NOTADB": "the file is not a database",
    "SQLITE_CANTOPEN": "the database cannot be opened: check that the folder exists and is writable",
    "SQLITE_PERM": "this process has no permission to access the database",
    "SQLITE_IOERR": "reading or writing the storage failed",
    "53100": "the storage is full",
    "25006": "the transaction or the database is read-only",
    "58030": "reading or writing the storage failed",
    "XX001": "the database is corrupt",
    "XX002": "the database is corrupt",
    1021: "the storage is full",
    1114: "the storage is full",
    1290: "the database is read-only",
    1792: "the transaction is read-only",
    1836: "the database is read-only",
}


def code_of(driver: BaseException) -> str | int | None:
    """Return SQLite's error name, PostgreSQL's SQLSTATE, or the error number of MariaDB and MySQL."""
    if isinstance(driver, OSError):
        return None
    if driver.args and isinstance(driver.args[0], int):
        return driver.args[0]
    return getattr(driver, "sqlite_errorname", None) or getattr(driver, "sqlstate", None)


def primary_code(code: str | int | None) -> str:
    """Return the primary code of an extended SQLite code: SQLITE_READONLY for SQLITE_READONLY_DBMOVED."""
    return "_".join(str(code).split("_")[:2])
