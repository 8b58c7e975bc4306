"""The report of a mirror run: what each split of a network costs and what was stolen from it, from plain JSON alone."""

from edgeward.report.splits.card import render_split_card as render_split_card
from edgeward.report.splits.document import split_report as split_report
from edgeward.report.splits.document import write_split_report as write_split_report
from edgeward.report.splits.page import render_split_page as render_split_page
from edgeward.report.splits.read import read_split_report as read_split_report
from edgeward.report.splits.schema import split_schema as split_schema
from edgeward.report.splits.schema import validate_split_report as validate_split_report
