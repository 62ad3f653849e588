"""A region on one machine: the cloud, the metadata service, the data path of an Elastic IP, instances, load, drills and the judge."""
