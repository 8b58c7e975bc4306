"""The job file: one TOML document that says what to protect, from whom, for which device and at what cost."""

from edgeward.job.job import DataSection as DataSection
from edgeward.job.job import Job as Job
from edgeward.job.job import ModelSection as ModelSection
from edgeward.job.job import RecipeChoice as RecipeChoice
from edgeward.job.job import demo_job as demo_job
from edgeward.job.reading import load_job as load_job
from edgeward.job.reading import parse_job as parse_job
