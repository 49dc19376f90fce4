"""Channels that are the axes of one sensor, and sensors that turn together."""

from __future__ import annotations

import pytest

from topokd_edge.data.sensors import Sensor, sensors


def xyz(*names: str) -> list[str]:
    return [f"{name}_{axis}" for name in names for axis in "xyz"]


def test_three_units_at_three_places() -> None:
    channels = [
        "bpm",
        *xyz("hand_acc", "hand_acc6", "hand_gyro", "hand_mag"),
        "hand_temp",
        *xyz("ankle_acc", "ankle_gyro"),
    ]
    units = ["bpm", *["m/s2"] * 6, *["rad/s"] * 3, *["uT"] * 3, "degC", *["m/s2"] * 3, *["rad/s"] * 3]
    found = sensors(channels, units)
    assert [(sensor.name, sensor.place) for sensor in found] == [
        ("bpm", "bpm"),
        *((f"hand_{kind}", "hand") for kind in ("acc", "acc6", "gyro", "mag")),
        ("hand_temp", "hand_temp"),
        *((f"ankle_{kind}", "ankle") for kind in ("acc", "gyro")),
    ]
    assert [index for sensor in found for index in sensor.channels] == list(range(len(channels)))


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("acc", ""),
        ("gyro", ""),
        ("right_arm_acc", "right_arm"),
        ("accelerometer_wrist", "wrist"),
        ("Magnetometer", ""),
        ("waist-linacc", "waist"),
        ("watch gyr", "watch"),
        ("wrist", "wrist"),
        ("image", "image"),
    ],
)
def test_the_place_is_what_is_left_of_the_name(name: str, place: str) -> None:
    (found,) = sensors(xyz(name), ["g"] * 3)
    assert (found.name, found.place, found.channels) == (name, place, (0, 1, 2))


def test_channels_in_any_order() -> None:
    channels = ["acc_z", "gyro_y", "acc_x", "gyro_x", "acc_y", "gyro_z"]
    found = sensors(channels, ["g", "deg/s", "g", "deg/s", "g", "deg/s"])
    assert {sensor.name: sensor.channels for sensor in found} == {"acc": (2, 4, 0), "gyro": (3, 1, 5)}


@pytest.mark.parametrize(
    ("channels", "units"),
    [
        (["acc_x", "acc_y"], ["g", "g"]),  # an axis is missing
        (["acc_x", "acc_y", "acc_z"], ["g", "g", "m/s2"]),  # of two units
        (["lead_x", "lead_y", "lead_z"], ["mV", "mV", "mV"]),  # no vector
        (["acc_x", "acc_Y", "acc_z"], ["g", "g", "g"]),
        (["ecg"], ["mV"]),
    ],
)
def test_what_is_no_three_axis_sensor_stands_alone(channels: list[str], units: list[str]) -> None:
    named = zip(channels, units, strict=True)
    assert sensors(channels, units) == tuple(
        Sensor(name, name, unit, (index,)) for index, (name, unit) in enumerate(named)
    )
