run test check bench prove:
	sh dev.sh $@

.PHONY: run test check bench prove
