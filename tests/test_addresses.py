"""Addresses: passwords that nobody may see, passwords from the environment or a file, and paths of SQLite databases."""

from __future__ import annotations

from pathlib import Path

import pytest

from coldtune.addresses import (
    Passwords,
    at_folder,
    has_password,
    keys_of,
    normalised,
    redact,
    sqlite_address,
    sqlite_path,
    without_password,
    words_without_passwords,
)

# Every secret contains S3CRET or one of its halves, which stand between the characters that people forget to encode.
SECRET_TEXTS = [
    "postgresql://me:S3CRET@db:5432/runs",
    "postgresql://me:S3@CRET@db/runs",
    "postgresql://me:S3/CRET@db/runs",
    "postgresql://me:12/S3CRET@db/runs",
    "postgresql://me:S3:CRET@db/runs",
    "postgresql://me:S3?CRET@db/runs",
    "postgresql://me:S3#CRET@db/runs",
    "postgresql://me:S3 CRET@db/runs",
    "postgresql://me:S3'CRET@db/runs",
    "postgresql://me:S3%40CRET@db/runs",
    "postgresql://:S3CRET@db/runs",
    "postgresql://S3CRET@db/runs",
    "postgresql+psycopg2://me:S3CRET@/runs?host=a:5432&host=b:5432",
    "postgresql://me:S3CRET@a:5432,b:5432/runs",
    "postgresql://me:S3CRET@[2001:db8::1]:5432/runs",
    "postgresql:///runs?user=me&password=S3CRET&sslmode=require",
    "postgresql://db/runs?sslpassword=S3CRET",
    "postgresql://db/runs?p%61ssword=S3CRET",
    "host=db user=me password=S3CRET dbname=runs",
    "host=db password='S3 CRET' user=me",
    "password = S3CRET",
    "mysql://me:p@S3/CRET?S3@db/runs?charset=utf8",
    "mssql+pyodbc:///?odbc_connect=DRIVER%3D%7Bx%7D%3BPWD%3DS3CRET",
    "DRIVER={x};UID=me;PWD={S3;CRET};Server=db",
    "https://S3CRET@host/mlflow",
    "https://host/mlflow?access_token=S3CRET&a=b",
    "http://me:S3CRET@host:5000",
    "databricks://token:S3CRET@workspace",
    "s3://AKIAS3CRET:S3CRET/S3CRET+x@bucket/prefix",
    "s3://bucket/prefix?secret_key=S3CRET",
    "gs://bucket/x?X-Goog-Signature=S3CRET",
    "no route to http://me:S3CRET@host:1/x, said http://me:S3CRET@host",
    "me:S3CRET@db:5432/runs",
    "connect(**{'user': 'me', 'password': 'S3CRET'})",
    '{"storage": "postgresql://me:S3CRET@db/runs", "password": "S3\\"CRET"}',
    "Authorization: Basic S3CRET==",
    "python jobs/sweep_blur.py --storage=postgresql://me:S3CRET@db/runs --trials 3",
]

PLAIN_TEXTS = [
    "sqlite:////home/me@site/runs/mlflow.db",
    "http://127.0.0.1:5000/#/experiments/1/runs?viewStateShareKey=a@b",
    "http://h/a@b",
    "s3://bucket/me@site/prefix?region=eu-west-1&endpoint_override=10.0.0.1:9000",
    "postgresql://db.lan:5432/runs?application_name=a@b",
    "needs a password: set PGPASSWORD, or name a file with --password-file F",
    "RAY_AUTH_MODE=token",
    "trial 3 failed: ValueError: training.lr = 3: at most 1 (see me@site)",
]


@pytest.mark.parametrize("text", SECRET_TEXTS)
def test_redact_any_form_of_address_hides_the_secret(text: str) -> None:
    shown = redact(text)
    assert "S3" not in shown
    assert "CRET" not in shown
    assert redact(shown) == shown


@pytest.mark.parametrize("text", PLAIN_TEXTS)
def test_redact_text_without_secret_stays_the_same(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("text", [text for text in SECRET_TEXTS if "://" in text.split("=")[0] and "S3 C" not in text])
def test_without_password_any_form_of_address_keeps_no_secret(text: str) -> None:
    if " " in text:
        pytest.skip("a text, not an address")
    address = without_password(text)
    if text != "postgresql://S3CRET@db/runs":  # a database keeps its user
        assert "S3" not in address
        assert "CRET" not in address
    assert not has_password(address)


def test_without_password_database_keeps_user_host_and_options() -> None:
    assert (
        without_password("postgresql://me:x@db:1/runs?sslmode=require") == "postgresql://me@db:1/runs?sslmode=require"
    )
    assert without_password("https://me:x@host/mlflow") == "https://host/mlflow"
    assert without_password("gs://anonymous@bucket/x") == "gs://anonymous@bucket/x"
    assert without_password("abfs://container@account/x") == "abfs://container@account/x"


def test_words_without_passwords_both_forms_of_a_flag_lose_the_password() -> None:
    words = ["job.py", "--storage=postgresql://me:S3CRET@db/d", "--tracking-uri", "http://me:S3CRET@h", "--set", "a=b"]
    assert words_without_passwords(words) == [
        "job.py", "--storage=postgresql://me@db/d", "--tracking-uri", "http://h", "--set", "a=b",
    ]  # fmt: skip


def test_normalised_reserved_characters_are_encoded_once() -> None:
    expected = "postgresql://me:p%40%2F%3Ax@db/runs"
    assert normalised("postgresql://me:p@/:x@db/runs") == expected
    assert normalised(expected) == expected


def test_keys_of_bucket_returns_both_keys() -> None:
    assert keys_of("s3://KEY:a/b+c@bucket/prefix") == ("KEY", "a/b+c")
    assert keys_of("s3://bucket/prefix") is None


@pytest.fixture
def no_passwords(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("PGPASSWORD", "MYSQL_PWD", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_passwords_environment_completes_addresses(no_passwords: pytest.MonkeyPatch) -> None:
    no_passwords.setenv("PGPASSWORD", "p@ss")
    no_passwords.setenv("MLFLOW_TRACKING_USERNAME", "you")
    no_passwords.setenv("MLFLOW_TRACKING_PASSWORD", "w/rd")
    passwords = Passwords.read(None)
    assert passwords.complete("postgresql://me@db/runs") == "postgresql://me:p%40ss@db/runs"
    assert passwords.complete("postgresql://me:own@db/runs") == "postgresql://me:own@db/runs"
    assert passwords.complete("http://host:5000") == "http://you:w%2Frd@host:5000"
    assert passwords.complete("sqlite:////x.db") == "sqlite:////x.db"


def test_passwords_file_with_names_or_a_single_line_completes_addresses(
    no_passwords: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "passwords"
    file.write_text("# a comment\nPGPASSWORD=a=b\nMLFLOW_TRACKING_USERNAME=you\nMLFLOW_TRACKING_PASSWORD=c\n")
    assert Passwords.read(file).complete("postgresql://me@db/d") == "postgresql://me:a%3Db@db/d"
    assert Passwords.read(file).complete("https://h") == "https://you:c@h"
    file.write_text("alone\n")
    assert Passwords.read(file).complete("mysql://me@db/d") == "mysql://me:alone@db/d"
    assert Passwords.read(file).complete("mysql://me@db/d", single=False) == "mysql://me@db/d"


def test_passwords_file_that_is_wrong_is_named_without_its_content(tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    with pytest.raises(ValueError, match=r"--password-file .*passwords: cannot be read"):
        Passwords.read(file)
    file.write_text("PGPASSWORD=a\nS3CRET\n")
    with pytest.raises(ValueError, match="line 2 is not NAME=PASSWORD") as caught:
        Passwords.read(file)
    assert "S3CRET" not in str(caught.value)


@pytest.mark.parametrize("name", ["runs", "a b", "a?b", "a%20b", "a#b", "a%zz", "a'b;&c", "ü"])
def test_sqlite_address_of_any_folder_is_read_by_sqlalchemy(name: str) -> None:
    from sqlalchemy.engine import make_url

    path = Path("/home") / name / "mlflow.db"
    address = sqlite_address(path)
    assert make_url(address).database == str(path)
    assert not make_url(address).query
    assert sqlite_path(address) == path


def test_at_folder_relative_sqlite_path_becomes_absolute(tmp_path: Path) -> None:
    assert at_folder("sqlite:///opt.db", tmp_path) == f"sqlite:///{tmp_path}/opt.db"
    assert at_folder("sqlite:///opt.db?timeout=9", tmp_path) == f"sqlite:///{tmp_path}/opt.db?timeout=9"
    for other in ("sqlite:////x/opt.db", "postgresql://db/d", "http://h"):
        assert at_folder(other, tmp_path) == other


@pytest.mark.parametrize("address", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///a?b/c.db"])
def test_sqlite_path_address_without_a_file_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"names no file|a question mark"):
        sqlite_path(address)
