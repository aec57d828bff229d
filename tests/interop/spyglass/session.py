"""Writes a session in which an animal with two lights on its head walks in circles; run in Spyglass's environment.

`write(path)` makes the NWB file as a camera's tracker would: one series for each epoch.
"""

from datetime import UTC, datetime

import numpy as np
from pynwb import NWBHDF5IO, NWBFile
from pynwb.behavior import Position
from pynwb.file import Subject

RATE = 30.0  # Hz
# how long each epoch is, in seconds: one whose analysis takes a moment to send, and short ones
SECONDS = [1800] + [20] * 19


def write(path):
    nwb = NWBFile(
        session_description="an animal walks in circles",
        identifier="session7",
        session_id="session7",
        session_start_time=datetime(2024, 5, 17, 9, 0, tzinfo=UTC),
        lab="Frank Lab",
        institution="A university",
        experimenter=["Lovelace, Ada"],
    )
    nwb.subject = Subject(subject_id="rat7", sex="F", species="Rattus norvegicus", age="P90D", description="a rat")
    position = Position(name="position")
    noise = np.random.default_rng(7)
    for epoch, seconds in enumerate(SECONDS):
        times = 2000.0 * epoch + np.arange(int(RATE * seconds)) / RATE
        angle = 2 * np.pi * times / 10
        centre = np.stack([60 + 30 * np.cos(angle), 60 + 30 * np.sin(angle)], axis=1)
        ahead = np.stack([-np.sin(angle), np.cos(angle)], axis=1) * 2
        lights = np.hstack([centre + ahead, centre - ahead]) + noise.normal(0, 0.05, (len(times), 4))
        position.create_spatial_series(
            name=f"led_position_{epoch}",
            description="xloc, yloc, xloc2, yloc2",
            data=lights,
            timestamps=times,
            conversion=0.01,
            reference_frame="the upper left corner of the picture",
        )
    nwb.create_processing_module("behavior", "where the animal is").add(position)
    with NWBHDF5IO(path, "w") as file:
        file.write(nwb)
