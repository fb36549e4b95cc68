"""Small V1 node classes that the tests' workflows are made of."""

import asyncio

CALLS: list[str] = []
"""Names of the nodes that ran, in order; tests clear it."""


class Number:
    RETURN_TYPES, FUNCTION = ("INT",), "run"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("INT", {"default": 1, "min": -1000, "max": 1000})}}

    def run(self, value):
        CALLS.append("Number")
        return (value,)


class Add:
    RETURN_TYPES, FUNCTION = ("INT",), "run"

    @classmethod
    def INPUT_TYPES(cls):
        number = ("INT", {"default": 0})
        return {"required": {"a": number, "b": number}, "optional": {"c": ("INT", {"default": 0, "forceInput": True})}}

    def run(self, a, b, c=0):
        CALLS.append("Add")
        return (a + b + c,)


class Sing:
    """One of each kind of widget around a socket, with a seed in the middle."""

    RETURN_TYPES, RETURN_NAMES, FUNCTION, CATEGORY = ("STRING", "INT"), ("text", "seed"), "run", "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "words": ("STRING", {"multiline": True, "default": "la", "tooltip": "What is sung."}),
                "again": ("STRING", {"forceInput": True}),
                "seed": ("INT", {"default": 7, "min": 0, "max": 2**53 - 1}),
                "voice": (["alto", "bass", "tenor"],),
            },
            "optional": {
                "loud": ("FLOAT", {"default": 0.5, "min": 0.0, "max": 1.0}),
                "echo": ("BOOLEAN", {"default": False}),
                "audioUI": ("AUDIO_UI", {}),
            },
        }

    def run(self, words, again, seed, voice, loud=0.5, echo=False, audioUI=None):
        CALLS.append("Sing")
        return f"{words}/{again}/{seed}/{voice}/{loud}/{echo}", seed


class Words:
    RETURN_TYPES, FUNCTION = ("STRING",), "run"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"text": ("STRING", {"default": "oh"})}, "optional": {"before": ("STRING,INT",)}}

    def run(self, text, before=None):
        CALLS.append("Words")
        return (text if before is None else f"{before}+{text}",)


class Show:
    RETURN_TYPES, FUNCTION, OUTPUT_NODE = (), "run", True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("*",)}}

    def run(self, value):
        CALLS.append("Show")
        return {"ui": {"text": [str(value)]}}


class Count:
    """A list of numbers."""

    RETURN_TYPES, OUTPUT_IS_LIST, FUNCTION = ("INT", "STRING"), (True, False), "run"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"upto": ("INT", {"default": 3})}}

    def run(self, upto):
        return list(range(upto)), f"{upto} numbers"


class Total:
    """Takes whole lists."""

    RETURN_TYPES, INPUT_IS_LIST, FUNCTION = ("INT",), True, "run"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"numbers": ("INT", {"forceInput": True}), "factor": ("INT", {"default": 1})}}

    def run(self, numbers, factor):
        assert isinstance(factor, list)
        return (sum(numbers) * factor[0],)


class Choose:
    """Evaluates only the side that it takes."""

    RETURN_TYPES, FUNCTION = ("INT",), "run"

    @classmethod
    def INPUT_TYPES(cls):
        lazy = ("INT", {"forceInput": True, "lazy": True})
        return {"required": {"second": ("BOOLEAN", {"default": False}), "one": lazy, "two": lazy}}

    def check_lazy_status(self, second, one=None, two=None):
        return ["two"] if second else ["one"]

    def run(self, second, one, two):
        return (two if second else one,)


class Later:
    RETURN_TYPES, FUNCTION = ("INT",), "run"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("INT", {"default": 1})}}

    async def run(self, value):
        await asyncio.sleep(0)
        return (value * 10,)


class Hidden:
    RETURN_TYPES, FUNCTION, OUTPUT_NODE = ("STRING",), "run", True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}, "hidden": {"id": "UNIQUE_ID", "prompt": "PROMPT", "extra": "EXTRA_PNGINFO"}}

    def run(self, id, prompt, extra):
        CALLS.append("Hidden")
        return {"ui": {"seen": [{"id": id, "prompt": prompt, "extra": extra}]}, "result": (id,)}


class Always:
    """Never served from a cache."""

    RETURN_TYPES, FUNCTION = ("INT",), "run"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    @classmethod
    def IS_CHANGED(cls):
        return float("nan")

    def __init__(self):
        self.times = 0

    def run(self):
        CALLS.append("Always")
        self.times += 1
        return (self.times,)


class Strict:
    """Its own checks: ``odd`` replaces the range check, ``name`` is left to the built-in one."""

    RETURN_TYPES, FUNCTION, OUTPUT_NODE = ("INT",), "run", True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"odd": ("INT", {"default": 1, "max": 5}), "name": (["x", "y"],)}}

    @classmethod
    def VALIDATE_INPUTS(cls, odd):
        return True if odd is None or odd % 2 else f"{odd} is even; give an odd number."

    def run(self, odd, name):
        return (odd,)


class Break:
    RETURN_TYPES, FUNCTION, OUTPUT_NODE = ("INT",), "run", True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("*",)}}

    def run(self, value):
        raise ValueError("this went wrong")


TABLE = {
    cls.__name__: cls
    for cls in (Number, Add, Sing, Words, Show, Count, Total, Choose, Later, Hidden, Always, Strict, Break)
}
TITLES = {"Sing": "Sing a Song"}
