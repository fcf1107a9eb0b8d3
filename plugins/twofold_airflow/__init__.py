"""The parts of Twofold's DAGs: wiring, operators, sensors, triggers. Imported by class path, from Airflow only."""
