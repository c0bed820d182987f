"""Describe a microchip number: its issuer, its standard, and its printed form."""

from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, TypeAdapter

from .fields import Microchip

Kind = Literal["country", "manufacturer", "unknown"]
Standard = Literal["ISO 11784", "older, 9 digits", "older, 10 letters and digits"]

# ISO 3166-1.
_COUNTRIES = """\
004 Afghanistan; 008 Albania; 010 Antarctica; 012 Algeria; 016 American Samoa; 020 Andorra; 024 Angola; 028 Antigua and
Barbuda; 031 Azerbaijan; 032 Argentina; 036 Australia; 040 Austria; 044 Bahamas; 048 Bahrain; 050 Bangladesh; 051
Armenia; 052 Barbados; 056 Belgium; 060 Bermuda; 064 Bhutan; 068 Bolivia; 070 Bosnia and Herzegovina; 072 Botswana; 074
Bouvet Island; 076 Brazil; 084 Belize; 086 British Indian Ocean Territory; 090 Solomon Islands; 092 British Virgin
Islands; 096 Brunei; 100 Bulgaria; 104 Myanmar; 108 Burundi; 112 Belarus; 116 Cambodia; 120 Cameroon; 124 Canada; 132
Cabo Verde; 136 Cayman Islands; 140 Central African Republic; 144 Sri Lanka; 148 Chad; 152 Chile; 156 China; 158
Taiwan; 162 Christmas Island; 166 Cocos Islands; 170 Colombia; 174 Comoros; 175 Mayotte; 178 Congo; 180 Democratic
Republic of the Congo; 184 Cook Islands; 188 Costa Rica; 191 Croatia; 192 Cuba; 196 Cyprus; 203 Czechia; 204 Benin; 208
Denmark; 212 Dominica; 214 Dominican Republic; 218 Ecuador; 222 El Salvador; 226 Equatorial Guinea; 231 Ethiopia; 232
Eritrea; 233 Estonia; 234 Faroe Islands; 238 Falkland Islands; 239 South Georgia and the South Sandwich Islands; 242
Fiji; 246 Finland; 248 Åland Islands; 250 France; 254 French Guiana; 258 French Polynesia; 260 French Southern
Territories; 262 Djibouti; 266 Gabon; 268 Georgia; 270 Gambia; 275 Palestine; 276 Germany; 288 Ghana; 292 Gibraltar;
296 Kiribati; 300 Greece; 304 Greenland; 308 Grenada; 312 Guadeloupe; 316 Guam; 320 Guatemala; 324 Guinea; 328 Guyana;
332 Haiti; 334 Heard Island and McDonald Islands; 336 Vatican City; 340 Honduras; 344 Hong Kong; 348 Hungary; 352
Iceland; 356 India; 360 Indonesia; 364 Iran; 368 Iraq; 372 Ireland; 376 Israel; 380 Italy; 384 Côte d'Ivoire; 388
Jamaica; 392 Japan; 398 Kazakhstan; 400 Jordan; 404 Kenya; 408 North Korea; 410 South Korea; 414 Kuwait; 417
Kyrgyzstan; 418 Laos; 422 Lebanon; 426 Lesotho; 428 Latvia; 430 Liberia; 434 Libya; 438 Liechtenstein; 440 Lithuania;
442 Luxembourg; 446 Macao; 450 Madagascar; 454 Malawi; 458 Malaysia; 462 Maldives; 466 Mali; 470 Malta; 474 Martinique;
478 Mauritania; 480 Mauritius; 484 Mexico; 492 Monaco; 496 Mongolia; 498 Moldova; 499 Montenegro; 500 Montserrat; 504
Morocco; 508 Mozambique; 512 Oman; 516 Namibia; 520 Nauru; 524 Nepal; 528 Netherlands; 531 Curaçao; 533 Aruba; 534 Sint
Maarten; 535 Bonaire, Sint Eustatius and Saba; 540 New Caledonia; 548 Vanuatu; 554 New Zealand; 558 Nicaragua; 562
Niger; 566 Nigeria; 570 Niue; 574 Norfolk Island; 578 Norway; 580 Northern Mariana Islands; 581 United States Minor
Outlying Islands; 583 Micronesia; 584 Marshall Islands; 585 Palau; 586 Pakistan; 591 Panama; 598 Papua New Guinea; 600
Paraguay; 604 Peru; 608 Philippines; 612 Pitcairn; 616 Poland; 620 Portugal; 624 Guinea-Bissau; 626 Timor-Leste; 630
Puerto Rico; 634 Qatar; 638 Réunion; 642 Romania; 643 Russia; 646 Rwanda; 652 Saint Barthélemy; 654 Saint Helena,
Ascension and Tristan da Cunha; 659 Saint Kitts and Nevis; 660 Anguilla; 662 Saint Lucia; 663 Saint Martin; 666 Saint
Pierre and Miquelon; 670 Saint Vincent and the Grenadines; 674 San Marino; 678 Sao Tome and Principe; 682 Saudi Arabia;
686 Senegal; 688 Serbia; 690 Seychelles; 694 Sierra Leone; 702 Singapore; 703 Slovakia; 704 Vietnam; 705 Slovenia; 706
Somalia; 710 South Africa; 716 Zimbabwe; 724 Spain; 728 South Sudan; 729 Sudan; 732 Western Sahara; 740 Suriname; 744
Svalbard and Jan Mayen; 748 Eswatini; 752 Sweden; 756 Switzerland; 760 Syria; 762 Tajikistan; 764 Thailand; 768 Togo;
772 Tokelau; 776 Tonga; 780 Trinidad and Tobago; 784 United Arab Emirates; 788 Tunisia; 792 Türkiye; 795 Turkmenistan;
796 Turks and Caicos Islands; 798 Tuvalu; 800 Uganda; 804 Ukraine; 807 North Macedonia; 818 Egypt; 826 United Kingdom;
831 Guernsey; 832 Jersey; 833 Isle of Man; 834 Tanzania; 840 United States; 850 United States Virgin Islands; 854
Burkina Faso; 858 Uruguay; 860 Uzbekistan; 862 Venezuela; 876 Wallis and Futuna; 882 Samoa; 887 Yemen; 894 Zambia
"""

_MANUFACTURERS = {
    "934": "Tierchip Dasmann",
    "956": "Trovan",
    "968": "AEG",
    "972": "Planet ID",
    "977": "Avid",
    "981": "Datamars",
    "982": "Allflex",
    "985": "Destron Fearing",
}
_SHARED_CODE = "900"
_UNASSIGNED_CODE = "000"

_OLDER: dict[int, Standard] = {9: "older, 9 digits", 10: "older, 10 letters and digits"}
_GROUPS = {9: (3, 3, 3), 10: (2, 4, 4), 15: (3, 3, 3, 3, 3)}


@dataclass(frozen=True, slots=True)
class MicrochipDescription:
    """The parts of a microchip number.

    Attributes:
        number: The number without separators.
        printed: The number in groups, as it is printed.
        standard: The standard of the number.
        kind: What the code stands for; "unknown" if there is no code, or if it is not assigned.
        code: The first three digits, None for an older number.
        issuer: The name of the country or manufacturer, None if it is unknown.
        explanation: The code and its meaning as a text, also if the issuer is unknown.

    """

    number: str
    printed: str
    standard: Standard
    kind: Kind
    code: str | None
    issuer: str | None
    explanation: str


def _required(chip: str | None) -> str:
    if chip is None:
        raise ValueError("must not be blank")
    return chip


MicrochipNumber = Annotated[Microchip, AfterValidator(_required)]
_MICROCHIP: TypeAdapter[str] = TypeAdapter(
    MicrochipNumber,
    config=ConfigDict(title="microchip", hide_input_in_errors=True, defer_build=True),
)


def describe_microchip(microchip: str) -> MicrochipDescription:
    """Return the parts of a microchip number: standard, issuer and printed form. No registry is queried.

    The number follows ISO 11784, and the countries ISO 3166-1. ICAR assigns the manufacturer codes; this library knows
    those that the manufacturer or two publications confirm. The site icar.org checks any number.

    Args:
        microchip: 15 digits, or 9 digits or 10 letters and digits for older chips; spaces, dots, hyphens and asterisks
            are ignored.

    Raises:
        ValidationError: The value is blank or not a microchip number.

    """
    number = _MICROCHIP.validate_python(microchip)
    groups = _GROUPS[len(number)]
    printed = " ".join(number[end - size : end] for size, end in zip(groups, accumulate(groups), strict=True))
    if standard := _OLDER.get(len(number)):
        explanation = "older number without an issuer code"
        return MicrochipDescription(number, printed, standard, "unknown", None, None, explanation)
    code = number[:3]
    kind, issuer, explanation = _issuer(code)
    return MicrochipDescription(number, printed, "ISO 11784", kind, code, issuer, explanation)


def _issuer(code: str) -> tuple[Kind, str | None, str]:
    if code == _UNASSIGNED_CODE:
        return "unknown", None, f"{code} is not assigned to a country or manufacturer"
    if code < _SHARED_CODE:
        country = _countries().get(code)
        return "country", country, f"country code {code}: {country or 'not in ISO 3166-1'}"
    if code == _SHARED_CODE:
        return "manufacturer", None, f"manufacturer code {code}: shared by many manufacturers"
    maker = _MANUFACTURERS.get(code)
    return "manufacturer", maker, f"manufacturer code {code}: {maker or 'not in the list of this library'}"


@cache
def _countries() -> dict[str, str]:
    entries = " ".join(_COUNTRIES.split()).split("; ")
    return {code: name for code, _, name in (entry.partition(" ") for entry in entries)}
