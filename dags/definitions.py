"""No DAG of its own: fails to import while any pipeline file has faults, so that Airflow's UI names them all.

The DAG files build their DAGs from the sound definitions only, so one faulty file takes no other pipeline's DAGs away.
`twofold check` lists the same faults.
"""

from twofold.definition.load import load_all
from twofold.settings import Settings

load_all(Settings().pipelines)
