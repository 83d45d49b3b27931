run test check:
	sh dev.sh $@

.PHONY: run test check
