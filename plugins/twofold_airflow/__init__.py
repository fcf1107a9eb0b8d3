"""What Twofold's DAGs are made of: wiring, operators, sensors, triggers. Imported by class path, from Airflow only."""
