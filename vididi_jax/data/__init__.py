"""Reading prepared clips: records, random access, clip sampling, batches."""
