"""Request bodies, written out as teams write them: one pydantic model per kind of model."""

from typing import Any

from pydantic import BaseModel, Field


class Iris(BaseModel):
    """Four measurements in centimetres, unnamed."""

    features: list[float] = Field(min_length=4, max_length=4)


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


BODIES: dict[str, type[BaseModel]] = {"iris": Iris, "cover-small": Cover, "cover-middle": Cover, "cover-heavy": Cover}


def columns(body: BaseModel) -> dict[str, Any]:
    """Column name → value, in the model's order; an unnamed vector's columns are x0, x1, …"""
    if isinstance(body, Iris):
        return {f"x{index}": value for index, value in enumerate(body.features)}
    return body.model_dump()
