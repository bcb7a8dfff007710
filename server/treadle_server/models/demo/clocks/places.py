"""Cities, countries and abbreviations by IANA time zone."""

import re
from dataclasses import dataclass
from functools import lru_cache
from zoneinfo import available_timezones

_BY_ZONE = """
Africa/Accra: accra, ghana
Africa/Addis_Ababa: addis ababa, ethiopia
Africa/Algiers: algiers, algeria
Africa/Cairo: cairo, egypt
Africa/Casablanca: casablanca, morocco, rabat
Africa/Johannesburg: johannesburg, cape town, south africa, durban, pretoria
Africa/Lagos: lagos, nigeria, abuja
Africa/Nairobi: nairobi, kenya
America/Anchorage: anchorage, alaska
America/Argentina/Buenos_Aires: buenos aires, argentina
America/Bogota: bogota, bogotá, colombia
America/Caracas: caracas, venezuela
America/Chicago: chicago, dallas, houston, austin, new orleans, texas, minneapolis, nashville,
  central time, cst, cdt
America/Denver: denver, salt lake city, colorado, mountain time, mst, mdt
America/Halifax: halifax
America/Havana: havana, cuba
America/Lima: lima, peru
America/Los_Angeles: los angeles, la, san francisco, seattle, san diego, las vegas, silicon valley,
  california, portland, pacific time, pst, pdt
America/Mexico_City: mexico city, mexico
America/Montevideo: montevideo, uruguay
America/New_York: new york, new york city, nyc, boston, washington, washington dc, washington d.c.,
  miami, atlanta, philadelphia, detroit, orlando, eastern time, est, edt
America/Phoenix: phoenix, arizona
America/Santiago: santiago, chile
America/Sao_Paulo: sao paulo, são paulo, rio de janeiro, rio, brasilia, brazil
America/St_Johns: newfoundland, st. john's
America/Toronto: toronto, ottawa, montreal, canada
America/Vancouver: vancouver
Asia/Baghdad: baghdad, iraq
Asia/Bangkok: bangkok, thailand
Asia/Dhaka: dhaka, bangladesh
Asia/Dubai: dubai, abu dhabi, uae, united arab emirates
Asia/Ho_Chi_Minh: ho chi minh city, saigon, hanoi, vietnam
Asia/Hong_Kong: hong kong
Asia/Jakarta: jakarta, indonesia
Asia/Jerusalem: jerusalem, tel aviv, israel
Asia/Kabul: kabul, afghanistan
Asia/Karachi: karachi, pakistan, lahore, islamabad
Asia/Kathmandu: kathmandu, nepal
Asia/Kolkata: kolkata, mumbai, delhi, new delhi, bangalore, bengaluru, chennai, hyderabad, india,
  calcutta, bombay, ist
Asia/Colombo: colombo, sri lanka
Asia/Kuala_Lumpur: kuala lumpur, malaysia
Asia/Manila: manila, philippines
Asia/Riyadh: riyadh, saudi arabia, mecca, jeddah
Asia/Seoul: seoul, korea, south korea, busan
Asia/Shanghai: shanghai, beijing, china, shenzhen, guangzhou
Asia/Singapore: singapore
Asia/Taipei: taipei, taiwan
Asia/Tashkent: tashkent, uzbekistan
Asia/Tehran: tehran, iran
Asia/Tokyo: tokyo, osaka, kyoto, japan, jst, sapporo
Asia/Yangon: yangon, myanmar
Asia/Doha: doha, qatar
Asia/Qatar: qatar
Atlantic/Reykjavik: reykjavik, iceland
Atlantic/Azores: azores
Australia/Adelaide: adelaide
Australia/Brisbane: brisbane, queensland
Australia/Darwin: darwin
Australia/Melbourne: melbourne
Australia/Perth: perth
Australia/Sydney: sydney, canberra, australia, aest
Europe/Amsterdam: amsterdam, netherlands, the netherlands, holland, rotterdam
Europe/Athens: athens, greece
Europe/Belgrade: belgrade, serbia
Europe/Berlin: berlin, munich, hamburg, frankfurt, cologne, germany, cet, cest, central european
  time, stuttgart, leipzig
Europe/Brussels: brussels, belgium
Europe/Bucharest: bucharest, romania
Europe/Budapest: budapest, hungary
Europe/Copenhagen: copenhagen, denmark
Europe/Dublin: dublin, ireland
Europe/Helsinki: helsinki, finland
Europe/Istanbul: istanbul, turkey, ankara, türkiye
Europe/Kyiv: kyiv, kiev, ukraine
Europe/Lisbon: lisbon, portugal, porto
Europe/London: london, england, uk, united kingdom, britain, great britain, scotland, edinburgh,
  manchester, bst, wales, glasgow
Europe/Luxembourg: luxembourg
Europe/Madrid: madrid, barcelona, spain, valencia, seville
Europe/Moscow: moscow, russia, saint petersburg, st petersburg
Europe/Oslo: oslo, norway
Europe/Paris: paris, france, lyon, marseille, nice
Europe/Prague: prague, czechia, czech republic
Europe/Riga: riga, latvia
Europe/Rome: rome, italy, milan, venice, naples, florence, turin
Europe/Sofia: sofia, bulgaria
Europe/Stockholm: stockholm, sweden
Europe/Tallinn: tallinn, estonia
Europe/Vienna: vienna, austria
Europe/Vilnius: vilnius, lithuania
Europe/Warsaw: warsaw, poland, krakow
Europe/Zurich: zurich, zürich, switzerland, geneva, bern, basel
Pacific/Auckland: auckland, wellington, new zealand, christchurch
Pacific/Honolulu: honolulu, hawaii
Pacific/Fiji: fiji, suva
Pacific/Apia: samoa, apia
UTC: utc, gmt, greenwich, coordinated universal time, zulu, universal time
"""
_CASED = frozenset({"la", "nice", "rio"})
_ZONE_NAME = re.compile(r"\b[A-Z][A-Za-z]+/[A-Z][A-Za-z_+\-0-9]+(?:/[A-Z][A-Za-z_]+)?")
_UTC_OFFSET = re.compile(r"\b(?:UTC|GMT)\s?([+-])\s?(\d{1,2})(?![\d:])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Place:
    """A place named in a text, and where it stands there."""

    name: str
    zone: str
    start: int
    end: int


@lru_cache(maxsize=1)
def _zones() -> dict[str, str]:
    table: dict[str, str] = {}
    for zone in sorted(available_timezones()):
        area, _, city = zone.rpartition("/")
        if area and not area.startswith(("Etc", "posix", "right", "SystemV", "US")) and len(city) > 3:
            table.setdefault(city.replace("_", " ").lower(), zone)
    for line in _BY_ZONE.replace("\n  ", " ").strip().splitlines():
        zone, _, names = line.partition(": ")
        table.update(dict.fromkeys(names.split(", "), zone))
    return table


@lru_cache(maxsize=1)
def _pattern() -> re.Pattern[str]:
    names = sorted(_zones(), key=len, reverse=True)
    return re.compile(
        r"(?<![\w-])(?:" + "|".join(re.escape(name) for name in names) + r")(?![\w-])", re.IGNORECASE
    )


@lru_cache(maxsize=512)
def places_in(text: str) -> tuple[Place, ...]:
    """Every place, in the order of the text; one zone may come twice."""
    found: list[Place] = []
    for match in _ZONE_NAME.finditer(text):
        if match.group() in available_timezones():
            name = match.group().rpartition("/")[2].replace("_", " ")
            found.append(Place(name, match.group(), *match.span()))
    for match in _UTC_OFFSET.finditer(text):
        sign = "-" if match.group(1) == "+" else "+"
        found.append(
            Place(
                f"UTC{match.group(1)}{match.group(2)}", f"Etc/GMT{sign}{int(match.group(2))}", *match.span()
            )
        )
    for match in _pattern().finditer(text):
        inside = any(place.start <= match.start() < place.end for place in found)
        if not inside and not (match.group().lower() in _CASED and match.group().islower()):
            found.append(Place(_titled(match.group()), _zones()[match.group().lower()], *match.span()))
    return tuple(sorted(found, key=lambda place: place.start))


def _titled(name: str) -> str:
    if name.lower() in (
        "utc",
        "gmt",
        "uk",
        "uae",
        "nyc",
        "la",
        "est",
        "edt",
        "pst",
        "pdt",
        "cet",
        "cest",
        "ist",
        "jst",
        "bst",
        "cst",
        "mst",
    ):
        return name.upper()
    return name if name != name.lower() else name.title()
