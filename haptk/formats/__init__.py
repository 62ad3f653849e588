"""What the user already has: parsers for haproxy.cfg, ha.cf, haresources and authkeys. Text in, frozen values or one error with file and line out."""
