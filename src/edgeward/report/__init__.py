"""Floor 6: what leaves the house: the report of a run and the card of a candidate, from plain JSON alone."""

from edgeward.report.card import render_card as render_card
from edgeward.report.compare import Comparison as Comparison
from edgeward.report.compare import compare as compare
from edgeward.report.document import build_report as build_report
from edgeward.report.document import report_json as report_json
from edgeward.report.document import write_report as write_report
from edgeward.report.html import render_html as render_html
from edgeward.report.read import read_report as read_report
from edgeward.report.schema import schema as schema
from edgeward.report.schema import validate_report as validate_report
