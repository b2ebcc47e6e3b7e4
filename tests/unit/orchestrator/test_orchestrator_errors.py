from __future__ import annotations

import pickle

import pytest

from orchestrator.errors import EXIT, HTTP_STATUS, ArgosyError, NotFound, error_of
from schemas.errors import Code, Exit, FieldError


@pytest.mark.parametrize("code", list(Code))
def test_every_code_has_a_class_a_status_and_an_exit_code(code: Code) -> None:
    error = error_of(code, "what is wrong", hint="what to do")
    assert error.code is code
    assert error.status == HTTP_STATUS[code] >= 400
    assert error.exit == EXIT[code] != Exit.OK
    assert (str(error), error.hint) == ("what is wrong", "what to do")
    assert (type(error) is ArgosyError) == (code is Code.INTERNAL)


def test_an_error_crosses_a_process_whole() -> None:
    error = NotFound("no job", hint="argosy job ls", fields=[FieldError(field="id", message="x")])
    back = pickle.loads(pickle.dumps(error))  # noqa: S301 - made one line above
    assert isinstance(back, NotFound)
    assert (back.detail, back.hint, back.fields) == (error.detail, error.hint, error.fields)
