"""Public data sets that can be downloaded from their own home: where, under which licence, whom to cite."""

from __future__ import annotations

from dataclasses import dataclass

from topokd_edge.errors import UsageError


@dataclass(frozen=True, slots=True)
class Source:
    """A data set that its publisher offers as one `.zip`.

    Attributes
    ----------
    name
        What a person types; also the name of the file.
    title
        One line for a person.
    url
        The file itself, https.
    home
        The page that describes the set and its terms.
    licence, citation
        What the publisher asks for; where no licence is stated, that is said.
    format
        The name of the import format that reads it.
    options
        What that import has to be told beyond the file.
    about_mb
        Roughly how large the file is in millions of bytes; None where nobody says.
    sha256
        Of the file, when its publisher or a trusted copy states it; None: a download cannot be verified.
    """

    name: str
    title: str
    url: str
    home: str
    licence: str
    citation: str
    format: str
    options: str = ""
    about_mb: int | None = None
    sha256: str | None = None


_UEA = "https://timeseriesclassification.com"
_UEA_LICENCE = "none stated for the archive; see the page of the set before you pass it on"
_UEA_CITATION = (
    "A. Bagnall et al., The UEA multivariate time series classification archive, 2018, arXiv:1811.00075"
)
_PHYSIONET = (
    "A. L. Goldberger et al., PhysioBank, PhysioToolkit, and PhysioNet, Circulation 101(23):e215, 2000"
)


def _uea(
    set_name: str, title: str, rate_hz: int, *, licence: str = _UEA_LICENCE, citation: str = _UEA_CITATION
) -> Source:
    return Source(
        name=f"uea-{set_name.lower()}",
        title=title,
        url=f"{_UEA}/aeon-toolkit/{set_name}.zip",
        home=f"{_UEA}/description.php?Dataset={set_name}",
        licence=licence,
        citation=citation,
        format="uea",
        options=f"--rate {rate_hz}",
    )


_ALL = (
    Source(
        name="pamap2",
        title="PAMAP2: 9 people, 18 activities, wrist, chest and ankle IMU at 100 Hz, heart rate",
        url="https://archive.ics.uci.edu/static/public/231/pamap2+physical+activity+monitoring.zip",
        home="https://archive.ics.uci.edu/dataset/231/pamap2+physical+activity+monitoring",
        licence="CC BY 4.0",
        citation="A. Reiss, PAMAP2 Physical Activity Monitoring, UCI Machine Learning Repository, 2012, "
        "https://doi.org/10.24432/C5NW2H; A. Reiss and D. Stricker, ISWC 2012",
        format="pamap2",
        about_mb=656,
    ),
    Source(
        name="dsads",
        title="Daily and Sports Activities: 8 people, 19 activities, 5 IMUs at 25 Hz",
        url="https://archive.ics.uci.edu/static/public/256/daily+and+sports+activities.zip",
        home="https://archive.ics.uci.edu/dataset/256/daily+and+sports+activities",
        licence="CC BY 4.0",
        citation="B. Barshan and K. Altun, Daily and Sports Activities, UCI Machine Learning Repository, "
        "2010, https://doi.org/10.24432/C5C59F; K. Altun, B. Barshan and O. Tuncel, "
        "Pattern Recognition 43(10):3605-3620, 2010",
        format="dsads",
        about_mb=170,
    ),
    Source(
        name="usc-had",
        title="USC-HAD: 14 people, 12 activities, hip IMU at 100 Hz",
        url="https://sipi.usc.edu/had/USC-HAD.zip",
        home="https://sipi.usc.edu/had/",
        licence="none stated in the files; published for research, read the terms at https://sipi.usc.edu/had/",
        citation="M. Zhang and A. A. Sawchuk, USC-HAD: A Daily Activity Dataset for Ubiquitous Activity "
        "Recognition Using Wearable Sensors, ACM UbiComp Workshop SAGAware, 2012",
        format="usc-had",
    ),
    Source(
        name="mit-bih",
        title="MIT-BIH Arrhythmia Database 1.0.0: 48 half-hour ECGs, 2 leads at 360 Hz, beats annotated",
        url="https://physionet.org/static/published-projects/mitdb/mit-bih-arrhythmia-database-1.0.0.zip",
        home="https://physionet.org/content/mitdb/1.0.0/",
        licence="Open Data Commons Attribution License 1.0 (ODC-By)",
        citation="G. B. Moody and R. G. Mark, IEEE Engineering in Medicine and Biology 20(3):45-50, 2001, "
        f"https://doi.org/10.13026/C2F305; {_PHYSIONET}",
        format="wfdb",
        about_mb=74,
    ),
    _uea(
        "Epilepsy",
        "UEA Epilepsy: wrist accelerometer at 16 Hz, 4 activities, one a mimicked seizure",
        16,
        citation="J. R. Villar et al., International Journal of Neural Systems 26(6), 2016; " + _UEA_CITATION,
    ),
    _uea("BasicMotions", "UEA BasicMotions: smartwatch acc + gyro at 10 Hz, 4 activities", 10),
    _uea(
        "AtrialFibrillation",
        "UEA AtrialFibrillation: 2-lead ECG at 128 Hz, 3 classes, 30 cases",
        128,
        licence="Open Data Commons Attribution License 1.0 (ODC-By) at its origin, PhysioNet",
        citation=f"PhysioNet / Computing in Cardiology Challenge 2004; {_PHYSIONET}; {_UEA_CITATION}",
    ),
)
SOURCES = {source.name: source for source in _ALL}


def source(name: str) -> Source:
    """Return the data set of a name.

    Raises
    ------
    UsageError
        When there is none of that name; the message lists those there are.
    """
    if name not in SOURCES:
        raise UsageError(
            f"NAME {name!r}: unknown, expected one of {', '.join(SOURCES)}",
            hint="topokd-edge data fetch says what each is",
        )
    return SOURCES[name]
