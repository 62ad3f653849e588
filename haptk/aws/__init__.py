"""The only place that knows boto3 and the metadata service: clients with deadlines, and errors mapped to the error tree."""
