"""Which instruments there are in each track class."""

from __future__ import annotations

from .tone import Patch

PATCHES: dict[str, dict[str, Patch]] = {
    "bass": {
        "bass guitar": Patch("bass guitar", tilt=0.8, cutoff=2500, pluck=0.23, ring=3.5, damp=0.35, release=0.06),
        "picked bass": Patch("picked bass", tilt=0.6, cutoff=4000, pluck=0.13, ring=3.0, damp=0.3, release=0.05),
        "upright bass": Patch("upright bass", tilt=1.0, cutoff=1875, pluck=0.35, ring=1.6, damp=0.6, release=0.08),
        "slap bass": Patch("slap bass", tilt=0.5, cutoff=4000, pluck=0.08, ring=1.6, damp=0.5, release=0.03),
        "synth bass": Patch("synth bass", tilt=0.9, cutoff=2500, attack=0.006, release=0.05, bloom=0.0, drive=0.8),
        "sub bass": Patch("sub bass", tilt=1.9, cutoff=1000, attack=0.01, release=0.08),
        "tuba": Patch("tuba", tilt=1.0, cutoff=1375, attack=0.035, release=0.07, bloom=0.05),
    },
    "guitar": {
        "acoustic guitar": Patch(
            "acoustic guitar", tilt=0.5, cutoff=4000, pluck=0.19, ring=2.2, damp=0.22, formants=((210, 90, 0.8),)
        ),
        "nylon guitar": Patch("nylon guitar", tilt=0.9, cutoff=2375, pluck=0.27, ring=2.0, damp=0.35),
        "clean electric guitar": Patch(
            "clean electric guitar", tilt=0.7, cutoff=3250, pluck=0.13, ring=3.4, damp=0.12, tremolo=0.15
        ),
        "muted guitar": Patch("muted guitar", tilt=0.7, cutoff=2750, pluck=0.11, ring=0.35, damp=0.25),
        "distorted guitar": Patch(
            "distorted guitar", tilt=0.8, cutoff=2250, pluck=0.15, ring=6.0, damp=0.05, release=0.05, drive=4.0
        ),
        "banjo": Patch("banjo", tilt=0.25, cutoff=5250, pluck=0.1, ring=0.8, damp=0.15, formants=((700, 250, 1.5),)),
        "steel-string guitar": Patch("steel-string guitar", tilt=0.4, cutoff=5625, pluck=0.14, ring=2.8, damp=0.16),
    },
    "keyboard": {
        "piano": Patch("piano", tilt=0.9, cutoff=3250, pluck=0.12, stiff=0.0003, ring=3.2, damp=0.22, release=0.12),
        "electric piano": Patch(
            "electric piano", tilt=2.2, cutoff=2000, ring=3.0, damp=0.4, tine=0.22, tremolo=0.2, release=0.1
        ),
        "organ": Patch("organ", tilt=0.7, even=0.8, cutoff=1875, soft=0.1, attack=0.008, release=0.04),
        "clavinet": Patch("clavinet", tilt=0.4, cutoff=4375, pluck=0.08, ring=0.7, damp=0.12, release=0.03),
        "harpsichord": Patch("harpsichord", tilt=0.35, cutoff=6875, soft=0.0, pluck=0.13, ring=1.4, damp=0.05),
        "celesta": Patch("celesta", tilt=2.6, cutoff=3750, stiff=0.01, ring=1.6, damp=0.8, tine=0.12, octave=1),
        "vibraphone": Patch("vibraphone", tilt=3.0, cutoff=3125, ring=3.0, damp=1.5, tremolo=0.45, tine=0.1),
        "accordion": Patch("accordion", tilt=0.6, cutoff=3250, soft=0.3, attack=0.03, release=0.06),
    },
    "strings": {
        "string ensemble": Patch("string ensemble", tilt=0.9, cutoff=3000, spread=22, attack=0.16, release=0.25),
        "staccato strings": Patch("staccato strings", tilt=0.9, cutoff=3500, spread=20, attack=0.025, release=0.12),
        "pizzicato strings": Patch("pizzicato strings", tilt=1.0, cutoff=2250, pluck=0.3, ring=0.55, damp=0.3),
        "solo violin": Patch(
            "solo violin",
            tilt=0.8,
            cutoff=4500,
            attack=0.06,
            release=0.09,
            vibrato=16,
            bloom=0.05,
            octave=0,
            formants=((500, 150, 0.7), (2700, 600, 1.0)),
        ),
        "cello": Patch(
            "cello",
            tilt=0.9,
            cutoff=2750,
            attack=0.07,
            release=0.1,
            vibrato=13,
            bloom=0.06,
            octave=-1,
            formants=((250, 90, 0.8), (1500, 400, 0.5)),
        ),
        "harp": Patch("harp", tilt=1.1, cutoff=3250, pluck=0.4, ring=2.6, damp=0.4, release=0.3),
    },
    "synth": {
        "synth pad": Patch("synth pad", tilt=1.1, cutoff=1875, spread=28, attack=0.35, release=0.5),
        "warm synth pad": Patch("warm synth pad", tilt=1.5, cutoff=1000, spread=34, attack=0.45, release=0.5),
        "synth pluck": Patch("synth pluck", tilt=0.8, cutoff=3250, ring=0.7, damp=0.25, release=0.06),
        "saw lead": Patch(
            "saw lead",
            tilt=0.9,
            cutoff=4750,
            attack=0.01,
            release=0.07,
        ),
        "square lead": Patch("square lead", tilt=1.0, even=0.04, cutoff=3750, attack=0.006, release=0.05),
        "synth stabs": Patch("synth stabs", tilt=0.8, cutoff=3250, spread=30, attack=0.006, release=0.09),
        "chiptune lead": Patch("chiptune lead", tilt=0.8, even=0.3, cutoff=11250, soft=0, attack=0.001, release=0.01),
    },
    "brass": {
        "trumpet": Patch(
            "trumpet",
            tilt=0.55,
            cutoff=3000,
            soft=0.8,
            attack=0.03,
            release=0.06,
            bloom=0.045,
            vibrato=7,
            formants=((1300, 500, 0.9),),
        ),
        "trombone": Patch(
            "trombone",
            tilt=0.7,
            cutoff=1875,
            soft=0.8,
            attack=0.045,
            release=0.07,
            bloom=0.06,
            octave=-1,
            formants=((600, 250, 0.8),),
        ),
        "french horns": Patch("french horns", tilt=1.2, cutoff=1375, attack=0.08, release=0.12, spread=9),
        "brass section": Patch("brass section", tilt=0.6, cutoff=2750, attack=0.03, release=0.09, spread=12),
    },
    "woodwinds": {
        "flute": Patch("flute", tilt=2.1, cutoff=3125, attack=0.05, release=0.08, vibrato=11, breath=0.045, octave=1),
        "clarinet": Patch("clarinet", tilt=0.9, even=0.12, cutoff=2500, attack=0.04, release=0.06, breath=0.008),
        "oboe": Patch(
            "oboe", tilt=0.4, cutoff=3250, attack=0.035, release=0.06, vibrato=8, formants=((1100, 250, 1.8),)
        ),
        "saxophone": Patch(
            "saxophone",
            tilt=0.6,
            cutoff=2500,
            attack=0.03,
            release=0.07,
            vibrato=10,
            breath=0.03,
            bloom=0.03,
            formants=((800, 250, 1.0),),
        ),
        "tin whistle": Patch("tin whistle", tilt=1.8, cutoff=5000, attack=0.02, release=0.04, breath=0.03, octave=1),
        "pan flute": Patch("pan flute", tilt=2.3, even=0.3, cutoff=2500, attack=0.04, release=0.1, breath=0.11),
    },
}
"""Track class → name in a caption → patch. Drums, percussion, fx and voices have rooms of their own."""
