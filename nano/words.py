"""Lyrics of simple words in several languages, each word spelt and sounded out.

Sounds are one character each. Vowels: a e i o u, A as in *hat*, E as in *sun*, O as in *dawn*, I as in *sit*.
Consonants as in English spelling, and S (sh), C (ch), J (j), T and D (th), N (ng). A dot parts syllables.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

VOWELS = "aeiouAEOI"


@dataclass(frozen=True)
class Word:
    """``text`` as written, ``syllables`` as sounded."""

    text: str
    syllables: tuple[str, ...]


@dataclass(frozen=True)
class Language:
    """``code`` of ``song.LANGUAGES``; ``words``: part of speech → words; ``joint`` stands between written words.

    ``lines``: each a row of parts of speech or words written out as ``text:sounds``.
    """

    code: str
    name: str
    words: dict[str, tuple[Word, ...]]
    lines: tuple[tuple[str, ...], ...]
    joint: str = " "


def _words(text: str) -> tuple[Word, ...]:
    return tuple(
        Word(written, tuple(sounds.split("."))) for written, sounds in (entry.split(":") for entry in text.split())
    )


def _lines(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(line.split()) for line in text.strip().splitlines())


LANGUAGES = (
    Language(
        "en",
        "English",
        {
            "noun": _words(
                "sun:sEn moon:mun night:nait day:dei river:rI.vE fire:fai.E road:roud sky:skai rain:rein light:lait "
                "heart:hat home:houm summer:sE.mE winter:wIn.tE morning:mO.niN star:sta sea:si wind:wInd love:lEv "
                "dream:drim song:soN city:sI.ti mountain:maun.tEn shadow:SA.dou ocean:ou.SEn train:trein "
                "window:wIn.dou garden:ga.dEn story:stO.ri silver:sIl.vE"
            ),
            "place": _words("here:hi.E there:De.E home:houm away:E.wei tonight:tu.nait alone:E.loun again:E.gen"),
            "adj": _words(
                "blue:blu golden:goul.dEn little:lI.tEl lonely:loun.li open:ou.pEn silent:sai.lEnt wild:waild "
                "new:nyu old:ould red:red slow:slou bright:brait yellow:ye.lou"
            ),
            "verb": _words(
                "follow:fo.lou see:si hear:hi.E know:nou feel:fil hold:hould leave:liv need:nid want:wont find:faind "
                "remember:rI.mem.bE carry:kA.ri"
            ),
            "go": _words("run:rEn fly:flai fall:fOl walk:wOk dance:dAns sing:sIN ride:raid stay:stei rise:raiz"),
            "who": _words("I:ai we:wi you:yu they:Dei"),
            "me": _words("me:mi you:yu us:Es them:Dem"),
            "where": _words("over:ou.vE under:En.dE into:In.tu by:bai to:tu through:Tru"),
        },
        _lines(
            """
            who verb the:DE noun
            who verb the:DE adj noun
            who go where the:DE noun
            who go where the:DE adj noun
            oh:ou who verb me place
            the:DE noun is:Iz adj place
            my:mai adj noun
            the:DE noun and:And the:DE noun
            who will:wIl go place
            who verb the:DE noun place
            go with:wID me where the:DE noun
            oh:ou my:mai noun my:mai noun
            who go and:And who go place
            who verb me where the:DE noun
            oh:ou my:mai noun
            who go
            """
        ),
    ),
    Language(
        "es",
        "Spanish",
        {
            "el": _words(
                "sol:sol cielo:sye.lo mar:mar camino:ka.mi.no viento:byen.to amor:a.mor fuego:fwe.go río:ri.o"
            ),
            "la": _words(
                "luna:lu.na noche:no.Ce luz:lus vida:bi.da casa:ka.sa lluvia:yu.bya calle:ka.ye estrella:es.tre.ya"
            ),
            "verb": _words(
                "quiero:kye.ro miro:mi.ro canto:kan.to busco:bus.ko sueño:swe.nyo siento:syen.to llevo:ye.bo"
            ),
            "adv": _words("hoy:oi siempre:syem.pre aquí:a.ki ya:ya contigo:kon.ti.go sin:sin"),
        },
        _lines(
            """
            verb el:el el
            verb la:la la
            la:la la y:i el:el el
            verb en:en la:la la adv
            el:el el de:de la:la la
            adv verb tu:tu la
            mi:mi el mi:mi el
            adv verb la:la la
            mi:mi el
            la:la la
            """
        ),
    ),
    Language(
        "it",
        "Italian",
        {
            "il": _words("sole:so.le mare:ma.re cielo:Ce.lo vento:ven.to cuore:kwo.re fuoco:fwo.ko giorno:Jor.no"),
            "la": _words("luna:lu.na notte:not.te luce:lu.Ce strada:stra.da vita:vi.ta stella:stel.la città:Cit.ta"),
            "verb": _words("vedo:ve.do sento:sen.to canto:kan.to cerco:Cer.ko amo:a.mo sogno:so.nyo voglio:vo.lyo"),
            "adv": _words("qui:kwi sempre:sem.pre ora:o.ra ancora:an.ko.ra mai:mai"),
        },
        _lines(
            """
            verb il:il il
            verb la:la la
            la:la la e:e il:il il
            adv verb la:la la
            verb il:il il adv
            nella:nel.la la verb adv
            tu:tu sei:sei il:il il
            la:la la verb il:il il
            il:il il
            la:la la
            """
        ),
    ),
    Language(
        "de",
        "German",
        {
            "der": _words("Mond:mont Wind:vint Tag:tak Regen:re.gEn Weg:vek Stern:Stern Himmel:hi.mEl Fluss:flus"),
            "die": _words("Nacht:naht Sonne:zo.nE Stadt:Stat Welt:velt Zeit:tsait Liebe:li.bE Straße:Stra.sE"),
            "adv": _words("hier:hir heute:hoi.tE immer:i.mEr allein:a.lain nun:nun wieder:vi.dEr"),
            "go": _words("singt:ziNt ruft:ruft kommt:komt geht:get bleibt:blaipt wartet:var.tEt"),
        },
        _lines(
            """
            der:der der go
            die:di die go adv
            der:der der und:unt die:di die
            adv go der:der der
            adv go die:di die
            ich:ih sehe:ze.E die:di die
            der:der der go für:fur mich:mih
            meine:mai.nE die go adv
            der:der der
            die:di die
            """
        ),
    ),
    Language(
        "ja",
        "Japanese",
        {
            "noun": _words(
                "そら:so.ra うみ:u.mi ほし:ho.Si かぜ:ka.ze はな:ha.na ゆめ:yu.me まち:ma.Ci あめ:a.me "
                "ひかり:hi.ka.ri こころ:ko.ko.ro つき:tsu.ki かわ:ka.wa"
            ),
            "verb": _words("みる:mi.ru うたう:u.ta.u あるく:a.ru.ku まつ:ma.tsu さがす:sa.ga.su おもう:o.mo.u"),
            "adj": _words("あおい:a.o.i とおい:to.o.i しろい:Si.ro.i ながい:na.ga.i"),
            "who": _words("きみ:ki.mi ぼく:bo.ku"),
        },
        _lines(
            """
            noun を:o verb
            adj noun
            who と:to verb
            adj noun を:o verb
            who の:no noun
            noun の:no noun
            who の:no noun を:o verb
            adj noun adj noun
            noun noun
            noun
            """
        ),
    ),
    Language(
        "zh",
        "Chinese",
        {
            "noun": _words(
                "天:tyen 月:ywe 海:hai 风:fEN 花:hwa 梦:mEN 雨:yu 星光:siN.gwaN 夜:ye 歌:gE 心:sin 太阳:tai.yaN"
            ),
            "verb": _words("看:kan 听:tiN 爱:ai 想:syaN 唱:CaN 等:dEN 找:Jau"),
            "who": _words("我:wo 你:ni 他:ta 我们:wo.mEn"),
            "adj": _words("蓝:lan 新:sin 小:syau 远:ywen 红:hoN"),
        },
        _lines(
            """
            who verb 着:JE noun
            who verb adj 的:dE noun
            adj 的:dE noun
            who 的:dE noun
            who 和:hE who verb noun
            noun 和:hE noun
            who 在:tsai verb noun
            adj noun adj noun
            adj noun
            noun
            """
        ),
        "",
    ),
)
"""Languages that are sung; the first is the commonest."""
CHANCES = (0.5, 0.12, 0.1, 0.1, 0.1, 0.08)

_TUNE = Language(
    "unknown",
    "wordless",
    {"la": _words("la:la na:na oh:ou ah:a ooh:u hey:hei da:da")},
    _lines("la la la\nla la la la\nla la la la la\nla la la la la la"),
)


def language_of(code: str) -> Language:
    """The language of that code; ``unknown`` sings syllables without meaning."""
    return next((language for language in LANGUAGES if language.code == code), _TUNE)


def line_of(language: Language, syllables: int, rng: np.random.Generator) -> tuple[Word, ...]:
    """Words of one line with ``syllables`` syllables, or as near as 40 attempts come, never more."""
    best: tuple[Word, ...] = ()
    count = 0
    for _ in range(40):
        line = tuple(_drawn(language, part, rng) for part in language.lines[rng.integers(len(language.lines))])
        total = sum(len(word.syllables) for word in line)
        if count < total <= syllables:
            best, count = line, total
        if count == syllables:
            break
    if not best:
        return (Word("oh", ("ou",)),) if language.joint else (Word("啊", ("a",)),)
    return best


def _drawn(language: Language, part: str, rng: np.random.Generator) -> Word:
    if part in language.words:
        choices = language.words[part]
        return choices[rng.integers(len(choices))]
    return _words(part)[0]


def written(language: Language, words: tuple[Word, ...]) -> str:
    """The line as lyrics show it, beginning with a capital where the script has them."""
    text = language.joint.join(word.text for word in words)
    return text[:1].upper() + text[1:]


def split(syllable: str) -> tuple[str, str, str]:
    """Consonants before, vowels, and consonants after: ``strai`` is ``("str", "ai", "")``.

    >>> split("nait")
    ('n', 'ai', 't')
    """
    vowels = [at for at, sound in enumerate(syllable) if sound in VOWELS]
    if not vowels:
        raise ValueError(f"The syllable {syllable!r} has no vowel; it needs one of {VOWELS}.")
    return syllable[: vowels[0]], syllable[vowels[0] : vowels[-1] + 1], syllable[vowels[-1] + 1 :]
