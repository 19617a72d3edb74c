"""The benchmark in its quick form, judged by its exit code and the shape of its JSON, never by times."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest
from click.testing import CliRunner

from tests.bench import bench
from tests.bench.bench import PARTS, Results
from tests.bench.figures import Row, Table, summary, tables_from
from tests.bench.report import PartResult
from tests.kit.places import ROOT
from tests.kit.programs import program


def figures_of(table):
    return [v for row in table.rows for v in row.values.values() if isinstance(v, (int, float))]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_quick_runs_every_part_and_says_where_and_what(tmp_path):
    command = program("tests.bench.bench", "--quick", "--folder", tmp_path)
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    parts = json.loads((tmp_path / "results.json").read_text())["parts"]
    assert list(parts) == [part.name for part in PARTS if part.in_quick and not part.obstacle]
    for name, entry in parts.items():
        where = entry["machine"]
        assert where["cores"] > 0
        assert where["versions"]["torch"]
        assert where["versions"]["h5py"]
        assert entry["quick"] is True
        tables = tables_from(name, entry["result"])
        assert all(value >= 0 for table in tables for value in figures_of(table))
        assert any(figures_of(table) for table in tables)
    for name in ("serving", "encoding", "encoding-curves", "extraction", "writing", "training"):
        assert {"checksums", "fsync", "batch invariance"} <= parts[name]["result"]["promises"].keys()
    assert "of the ceiling" in done.stdout
    assert "QUICK" in done.stdout
    drawn = {path.name for path in (tmp_path / "plots").glob("*")}
    if find_spec("matplotlib"):
        assert drawn >= {"serving.png", "encoding.png"}
    else:
        assert not drawn


class TestRunner:
    @pytest.fixture
    def parts(self, monkeypatch, tmp_path):
        """Two parts of a few lines in place of the real ones; the second fails while a file is there."""
        values = PartResult([Table("T", ["tokens/s"])]).to_dict()
        values["tables"][0]["rows"] = [
            {"name": "a", "kind": "ours", "values": {"tokens/s": 7.5}, "limit": ""}
        ]
        printed = f'{{**{values!r}, "settings": {{"a": sys.argv[1:]}}}}'
        folder = tmp_path / "tests" / "bench"
        folder.mkdir(parents=True)
        for package in (folder, folder.parent):
            (package / "__init__.py").touch()
        (folder / "good.py").write_text(f'"""Good."""\nimport json, sys\nprint(json.dumps({printed}))')
        (folder / "bad.py").write_text('"""Bad."""\nimport sys\nprint("{}")\nsys.exit(3)')
        monkeypatch.setattr(bench, "ROOT", tmp_path)
        found = (bench.Part("good", "good", ("--more",), peer=True), bench.Part("bad", "bad"))
        monkeypatch.setattr(bench, "PARTS", found)
        return folder

    def run(self, folder, *arguments):
        return CliRunner().invoke(bench.main, ["--folder", str(folder / "out"), *arguments])

    def test_a_part_gets_its_arguments_and_leaves_its_figures(self, parts):
        done = self.run(parts, "good", "--quick", "--peer", "python3.7")
        assert done.exit_code == 0, done.output
        assert "7.5" in done.output
        kept = Results(parts / "out" / "results.json").parts["good"]
        assert kept["result"]["settings"]["a"] == ["--more", "--json", "--quick", "--peer", "python3.7"]
        assert kept["machine"]["python"] == sys.version.split()[0]

    def test_a_part_that_fails_is_named_and_the_others_count(self, parts):
        done = self.run(parts)
        assert done.exit_code == 1
        assert "without figures: bad" in done.output
        assert "exit code 3" in done.output
        assert list(Results(parts / "out" / "results.json").parts) == ["good"]

    def test_what_is_no_json_is_an_error(self, parts):
        (parts / "bad.py").write_text("print('tokens/s: 7')")
        done = self.run(parts, "bad")
        assert done.exit_code == 1
        assert "no JSON" in done.output

    def test_kept_figures_are_printed_without_measuring(self, parts):
        self.run(parts, "good")
        (parts / "good.py").unlink()
        done = self.run(parts, "--print")
        assert done.exit_code == 0, done.output
        assert "7.5" in done.output

    def test_a_part_whose_corpus_is_absent_is_left_out(self, parts, monkeypatch):
        absent = bench.Part("bad", "bad", needs=parts / "absent")
        monkeypatch.setattr(bench, "PARTS", (bench.PARTS[0], absent))
        done = self.run(parts)
        assert done.exit_code == 0, done.output
        assert f"needs {parts / 'absent'}" in done.output

    def test_an_unknown_part_is_wrong_use(self, parts):
        done = self.run(parts, "serving")
        assert done.exit_code == 2
        assert "no part serving" in done.output

    def test_every_real_part_says_what_it_is_for(self):
        done = CliRunner().invoke(bench.main, ["--list"])
        assert done.exit_code == 0
        lines = done.output.splitlines()
        assert [line.split()[0] for line in lines] == [part.name for part in PARTS]
        assert all(len(line.split()) > 4 for line in lines)


class TestTables:
    @pytest.fixture
    def table(self):
        table = Table("Reading", ["tokens/s", "bytes"], base="theirs")
        table.add("theirs", "alternative", 50.0, 2048)
        table.add("absent", "alternative", "not installed")
        table.add("ours", "ours", 1234.0, 1024)
        table.add("slow memory", "ceiling", 2000.0)
        table.add("memory", "ceiling", 4936.0)
        return table

    def lines(self, table):
        return {
            cells[0].strip("* "): [cell.strip() for cell in cells[1:]]
            for cells in (line.strip("|").split("|") for line in table.markdown().splitlines()[2:])
        }

    def test_ratios_and_shares(self, table):
        lines = self.lines(table)
        assert lines["theirs"] == ["50.0".removesuffix(".0"), "2,048", "1 x", "1%"]
        assert lines["ours"] == ["1,234", "1,024", "25 x", "25%"]
        assert lines["absent"] == ["not installed", "–", "–", ""]
        assert lines["ceiling: memory"] == ["4,936", "–", "", ""]

    def test_a_row_may_name_its_own_ceiling(self, table):
        table.add("also ours", "ours", 1000.0, limit="slow memory")
        assert self.lines(table)["also ours"][-1] == "50%"

    def test_of_seconds_fewer_are_better(self):
        table = Table("Epoch", ["seconds"], base="live", lower_is_better=True)
        table.add("live", "alternative", 300.0)
        table.add("cached", "ours", 1.5)
        table.add("model alone", "ceiling", 1.2)
        lines = self.lines(table)
        assert lines["cached"] == ["1.5", "200 x", "80%"]
        assert table.best("ours", "alternative").name == "cached"

    def test_the_summary_has_the_best_of_each_kind(self, table):
        table.add("better", "recorded", 100.0)
        (row,) = summary({"reading": [table, Table("without figures", ["x"])]}).rows
        assert list(row.values.values()) == ["ours", 1234.0, "better (recorded)", 100.0, "12 x", "25%"]

    def test_tables_survive_json(self, table):
        (back,) = tables_from("x", json.loads(json.dumps(PartResult([table]).to_dict())))
        assert back == table

    def test_other_scripts_json_becomes_tables(self):
        values = {
            "peak": {"float32": 3, "note": "flat"},
            "sizes": [{"n": 1, "mb": 2.5}, {"n": 2, "mb": 2.75, "l": [{"e": 1}, {"e": 3}]}],
        }
        single, listed = tables_from("memory", values)
        assert [row.name for row in single.rows] == ["peak float32", "peak note"]
        assert [(row.name, row.values["mb"]) for row in listed.rows] == [("1", 2.5), ("2", 2.75)]
        assert listed.rows[1].values["l 1 e"] == 3


def test_figures_are_put_between_the_marks_of_the_page(tmp_path):
    results = Results(tmp_path / "results.json")
    table = Table("Start-up", ["seconds"], [Row("ours", "ours", {"seconds": 0.5})])
    entry = {
        "date": "2026-01-01", "seconds": 1.0, "cpu_seconds": 1.0, "load_before": 0.0, "quick": False,
        "machine": {
            "cores": 2, "processor": "P", "revision": "0123456789abcdef", "changed_files": 0,
            "versions": {"torch": "2"},
        },
        "result": PartResult([table]).to_dict(),
    }  # fmt: skip
    results.add("start-up", entry)
    page = "a\n<!-- part start-up -->\nold\n<!-- end -->\nb\n<!-- part index -->\nkept\n<!-- end -->\n"
    new = bench.filled(page, results)
    assert "old" not in new
    assert "revision 0123456789" in new
    assert "**ours**" in new
    assert new.endswith("b\n<!-- part index -->\nkept\n<!-- end -->\n")
    assert bench.filled(new, results) == new


def test_every_mark_of_the_page_is_a_part():
    page = bench.PAGE.read_text(encoding="utf-8")
    assert bench.filled(page, Results(ROOT / "nowhere.json")) == page
    assert page.count("<!-- part ") == page.count("<!-- end -->") >= 10
