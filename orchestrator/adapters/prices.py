"""The price table: a small YAML file.

.. code-block:: yaml

    currency: EUR
    cpu_hour: 0.04   # a reserved core
    gpu_hour: 2.10   # a reserved GPU
"""

from __future__ import annotations

from typing import Annotated

import yaml
from pydantic import Field, StringConstraints, ValidationError

from orchestrator.domain.cost import Prices
from orchestrator.errors import Invalid
from orchestrator.home import Home
from orchestrator.settings import Settings
from schemas.base import Authored

_MAX_BYTES = 64 * 1024
_HINT = "as in: {currency: EUR, cpu_hour: 0.04, gpu_hour: 2.10}"

_Price = Annotated[float, Field(ge=0, le=1_000_000)]


class _Table(Authored):
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
    cpu_hour: _Price
    gpu_hour: _Price = 0.0


def load_prices(settings: Settings) -> Prices | None:
    """The prices of ``ARGOSY_PRICES``, else of ``prices.yaml`` in the home; None without either.

    Raises:
        Invalid: the file cannot be read, or is no price table; the message says where.
    """
    path = settings.prices or Home(settings.home).prices_yaml
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        if settings.prices is None:
            return None
        msg = f"ARGOSY_PRICES: {path} is not there"
        raise Invalid(msg, hint=f"write it, {_HINT}; or unset ARGOSY_PRICES") from None
    except OSError as error:
        msg = f"the price table {path} cannot be read: {error.strerror}"
        raise Invalid(msg) from error
    if len(data) > _MAX_BYTES:
        msg = f"the price table {path} has more than {_MAX_BYTES} bytes"
        raise Invalid(msg, hint=_HINT)
    try:
        table = _Table.model_validate(yaml.safe_load(data))
    except yaml.YAMLError as error:
        first = " ".join(str(error).split())
        msg = f"the price table {path} is not YAML: {first}"
        raise Invalid(msg, hint=_HINT) from error
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        msg = f"the price table {path}: {where + ': ' if where else ''}{fault['msg']}"
        raise Invalid(msg, hint=_HINT) from error
    return Prices(table.currency, table.cpu_hour, table.gpu_hour)
