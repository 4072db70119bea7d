"""E-mail addresses, phone numbers and public IP addresses go; what looks like them stays."""

import time

import pytest

from data_pipelines.document import Document, Dropped
from data_pipelines.stages.filters import open_filters
from data_pipelines.stages.personal_data import PersonalDataStage
from data_pipelines.stages.sites import SiteCounts, host_of, read_sites
from llama_jax.config import FilesSource, PersonalData
from llama_jax.recipe import from_json, to_json

MARKED = PersonalData(email="E", phone="P", ip="I", max_finds=100)


def passed(*texts, config=MARKED):
    dropped = Dropped()
    (stage,) = open_filters([config])
    documents = [Document(f"d{number}", text) for number, text in enumerate(texts)]
    return [document.text for document in stage.keep(documents, dropped)], dropped


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("mail ann.b+x@mail.acme.co.uk.", "mail E."),
        ("<ann@acme.org>, (bob@acme.org)", "<E>, (E)"),
        ("mailto:ann@acme.org?subject=1", "mailto:E?subject=1"),
        ("ann@acme.org,bob@acme.org", "E,E"),
        ("ann@lists.acme.org에서", "E에서"),
        ("...ann@acme.org", "...E"),
        ("call 415-555-2671 or (415) 555 2671", "call P or P"),
        ("+1 415.555.2671; 1-800-273-8255", "P; P"),
        ("Tel.: +49 30 20619-0\nFax", "Tel.: P\nFax"),
        ("+44 (0) 20 7946 0958 x", "P x"),
        ("+4915167851903", "P"),
        ("at 212.27.32.176, port", "at I, port"),
        ("http://212.27.32.176:80/x", "http://I:80/x"),
        ("from 212.27.32.176.", "from I."),
        ("2001:67c:2564:a119::77.", "I."),
        ("[2a00:1450:4001:81b::200e]:443", "[I]:443"),
        ("over 2a00:1450:4001:81b:0:0:0:200e", "over I"),
    ],
)
def test_what_identifies_people_is_replaced(text, clean):
    assert passed(text)[0] == [clean]


@pytest.mark.parametrize(
    "text",
    [
        "follow @ann or ann @ acme.org",
        "user@example.com, user@mail.example.org, a@b.test, root@localhost.localdomain",
        "logo@2x.png icon@large.svg npm@5.0.1 a@b",
        "name." + "x" * 65 + "@acme.org",
        "1415926535 4155552671 2024-555-2671",
        "115-555-2671 and 415-155-2671 and 415-555-0123",
        "415-555-26711 or 3.415.555.2671 or 415-555-2671-9 or 415.555.2671.5",
        "+2147483647 and +922337203685477 and +1 2 3 and a+4930206190 and +49 30 20619x",
        "10.0.0.255 172.16.254.1 192.168.1.100 127.0.0.1 100.64.0.1 169.254.0.200",
        "192.0.2.146 198.51.100.7 203.0.113.200 224.0.0.251 255.255.255.255 0.0.0.200",
        "12.2.2.1. Debian 8.4.18.99",
        "v 1.200.3.4, version: 1.200.3.4, Version 1.200.3.4, Chrome/41.0.227.0, section 9.1.2.100",
        "1.200.3.4.5 and 1.200.3.4-beta and 1.200.3.4rc1 and lib-1.200.3.4 and 256.200.3.4",
        "1.02.3.200",
        "fe80::1ff:fe23:4567:890a fd00:2001:db8a:1::1 2001:db8:1:2::1 2002:c000:204::1 ::1",
        "a[2000::2] at 12:30:45:10, std::abc::def, 20:34:2024:10:1",
    ],
)
def test_what_looks_like_it_stays(text):
    assert passed(text)[0] == [text]


def test_a_kind_without_placeholder_stays_and_does_not_count():
    config = PersonalData(email="", max_finds=0)
    assert passed("ann@acme.org", config=config)[0] == ["ann@acme.org"]
    assert passed("415-555-2671", config=config)[1].counts == {"personal data: finds": 1}


def test_replacements_are_counted_by_kind_and_many_drop_the_document():
    many = "ann@acme.org " * 3
    config = PersonalData(max_finds=2)
    kept, dropped = passed("a@acme.org +49 30 20619-0", many, "212.27.32.176", config=config)
    assert kept == ["|||EMAIL_ADDRESS||| |||PHONE_NUMBER|||", "|||IP_ADDRESS|||"]
    assert dropped.notes == {"personal data replaced": {"email": 1, "phone": 1, "ip": 1}}
    assert dropped.examples == {"personal data: finds": ["d1 (3, at most 2)"]}


def test_all_else_of_a_document_stays():
    (stage,) = open_filters([MARKED])
    document = Document("d", "to ann@acme.org", "http://a.org", "en", (("k", "v"),))
    (kept,) = stage.keep([document], Dropped())
    assert kept == document._replace(text="to E")


def test_sites_above_a_rate_are_found_in_one_pass_and_dropped_in_the_next(tmp_path):
    def page(host, number, text):
        return Document(f"{host}/{number}", text, f"https://{host}:8080/{number}")

    pages = [page("WWW.forum.org", n, "ann@acme.org 415-555-2671") for n in range(3)]
    pages += [page("news.org", n, "ann@acme.org" if n == 0 else "nothing") for n in range(3)]
    pages += [page("small.org", 0, "ann@acme.org bob@acme.org"), Document("x", "ann@acme.org")]
    stage = PersonalDataStage(PersonalData())
    first, second = SiteCounts(), SiteCounts()
    first.add(pages[:2], stage.find)
    second.add(pages[2:], stage.find)
    first.update(second)
    assert first.above(0.5, min_documents=2) == ["forum.org"]
    assert first.above(0.5, min_documents=1) == ["forum.org", "small.org"]
    assert first.above(2, min_documents=1) == []
    (tmp_path / "sites.txt").write_text("\n".join(first.above(0.5, min_documents=2)) + "\n")
    (stage,) = open_filters([PersonalData(sites_file=str(tmp_path / "sites.txt"))])
    dropped = Dropped()
    kept = list(stage.keep(pages, dropped))
    assert [document.id for document in kept] == [d.id for d in pages[3:]]
    assert dropped.examples["personal data: site"][0] == "WWW.forum.org/0 (forum.org)"


def test_the_fingerprint_follows_the_list_of_sites(tmp_path):
    path = tmp_path / "sites.txt"
    prints = []
    for text in ("a.org", "b.org"):
        path.write_text(text)
        prints.append(open_filters([PersonalData(sites_file=str(path))])[0].fingerprint())
    assert prints[0] != prints[1]
    assert open_filters([MARKED])[0].fingerprint() == open_filters([MARKED])[0].fingerprint()


def test_hosts_and_lists_that_are_none():
    assert host_of("http://[bad/") == host_of("") == host_of("file:///x") == ""
    with pytest.raises(ValueError, match=r"filters\.personal_data\.sites_file='no'.*one a line"):
        read_sites("no")


def test_nothing_to_look_for_is_refused():
    with pytest.raises(ValueError, match=r"personal_data\.email, \.phone and \.ip are all empty"):
        PersonalData(email="", phone="", ip="")


def test_the_config_survives_json():
    source = FilesSource(filters=(MARKED,))
    assert from_json(to_json(source), FilesSource) == source


def test_a_text_of_nothing_but_finds_takes_little_memory():
    stage = PersonalDataStage(PersonalData())
    assert 10_000 < len(stage.find("ann@acme.org " * 200_000)) < 10_100


def test_hostile_text_takes_linear_time():
    start = time.process_time()
    for piece in ("@", "a@", "a.", "+1", "+1 ", "1.", "1:", "2001:", "415-", "+" + "1" * 39 + "a"):
        passed(piece * (400_000 // len(piece)))
    passed("a." * 200_000 + "@" + "a." * 200_000)
    assert time.process_time() - start < 10
