"""Request bodies, written out as teams write them: one pydantic model per kind of model."""

from typing import Any

from pydantic import BaseModel, Field


class Iris(BaseModel):
    """Four measurements in centimetres, unnamed."""

    features: list[float] = Field(min_length=4, max_length=4)


class Penguin(BaseModel):
    """A penguin, of which some may be unknown."""

    island: str | None
    culmen_length_mm: float | None
    culmen_depth_mm: float | None
    flipper_length_mm: float | None
    body_mass_g: float | None
    sex: str | None


class Cover(BaseModel):
    """A patch of forest: ten integers and two categories."""

    Elevation: int
    Aspect: int
    Slope: int
    Horizontal_Distance_To_Hydrology: int
    Vertical_Distance_To_Hydrology: int
    Horizontal_Distance_To_Roadways: int
    Hillshade_9am: int
    Hillshade_Noon: int
    Hillshade_3pm: int
    Horizontal_Distance_To_Fire_Points: int
    Wilderness_Area: str
    Soil_Type: str


_BODIES: dict[str, type[BaseModel]] = {"iris": Iris, "penguins": Penguin, "cover": Cover}


def body_of(model: str) -> type[BaseModel]:
    """The body of a registered model, by the first word of its name; raises `KeyError` with the
    known ones."""
    try:
        return _BODIES[model.split("-", maxsplit=1)[0]]
    except KeyError:
        raise KeyError(
            f"{model}: no body is written for it; there are {', '.join(_BODIES)}"
        ) from None


def record(body: BaseModel) -> dict[str, Any]:
    """Column name → value, in the model's order; an unnamed vector's columns are x0, x1, …"""
    if isinstance(body, Iris):
        return {f"x{index}": value for index, value in enumerate(body.features)}
    return body.model_dump()
