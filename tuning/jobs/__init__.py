"""Jobs: files of rows that others have trained to the end (`job_record.py` says what a job goes through)."""
