# The servers and checkers that `make e2e` and `make stack` run, built from source into
# .tools/<name>-<version>/ and linked in .tools/bin. What is there is not built again.
TOOLS := .tools

BUILDER_VERSION := 0.165.0
PROMETHEUS_VERSION := 0.316.0
ALERTMANAGER_VERSION := 0.34.2

# The Collector is built anew when the list of its parts changes.
PARTS := monitoring/collector/builder.yaml
BUILDER := $(TOOLS)/ocb-$(BUILDER_VERSION)/builder
COLLECTOR := $(TOOLS)/collector-$(BUILDER_VERSION)-$(firstword $(shell cksum <$(PARTS)))/otelcol-recsys
PROMETHEUS := $(TOOLS)/prometheus-$(PROMETHEUS_VERSION)/prometheus
PROMTOOL := $(TOOLS)/prometheus-$(PROMETHEUS_VERSION)/promtool
AMTOOL := $(TOOLS)/alertmanager-$(ALERTMANAGER_VERSION)/amtool

.PHONY: tools

tools: $(COLLECTOR) $(PROMETHEUS) $(PROMTOOL) $(AMTOOL)   ## build the Collector, Prometheus and their checkers, ten minutes once
	@mkdir -p $(TOOLS)/bin
	@for tool in $^; do ln -sf "../$${tool#$(TOOLS)/}" $(TOOLS)/bin/; done
	@echo "In $(TOOLS)/bin: $(notdir $^)"
	@command -v prometheus-alertmanager || command -v alertmanager || echo "make e2e needs Alertmanager, too, which cannot be built like these: apt-get install prometheus-alertmanager"

# Built aside and moved, so that a build that was broken off leaves nothing that looks complete.
define built
	@go version >/dev/null 2>&1 || { echo "make tools needs Go 1.26 or later: https://go.dev/doc/install"; exit 1; }
	@echo "Building $(@F) into $(@D), $(1) ..."
	@rm -rf $(@D).part && mkdir -p $(@D).part $(@D)
	@$(2)
	@mv $(@D).part/$(@F) $@ && rm -rf $(@D).part
endef
go_install = GOBIN=$(CURDIR)/$(@D).part go install $(1)

$(BUILDER):
	$(call built,half a minute,$(call go_install,go.opentelemetry.io/collector/cmd/builder@v$(BUILDER_VERSION)))

$(COLLECTOR): | $(BUILDER)
	$(call built,five minutes,$(BUILDER) --config $(PARTS) --output-path $(@D).part >$(@D)/build.log 2>&1 || { tail -20 $(@D)/build.log; exit 1; })

# Without the discovery of targets in clouds, which doubles the time that it takes to build.
$(PROMETHEUS):
	$(call built,three minutes,$(call go_install,-tags remove_all_sd github.com/prometheus/prometheus/cmd/prometheus@v$(PROMETHEUS_VERSION)))

$(PROMTOOL): | $(PROMETHEUS)
	$(call built,a minute,$(call go_install,-tags remove_all_sd github.com/prometheus/prometheus/cmd/promtool@v$(PROMETHEUS_VERSION)))

$(AMTOOL):
	$(call built,a minute,$(call go_install,github.com/prometheus/alertmanager/cmd/amtool@v$(ALERTMANAGER_VERSION)))

# What checks the LogQL of the runbooks, which nothing but `make e2e` needs: with Grafana's own grammar.
LOGQL_LINT_PARTS := $(addprefix monitoring/lint/,logql-lint.mjs package.json package-lock.json .npmrc)
LOGQL_LINT := $(TOOLS)/logql-lint-$(firstword $(shell cat $(LOGQL_LINT_PARTS) | cksum))/logql-lint.mjs

# Aside, in $(@D).part; what is there is moved when it is complete.
define npm_installed
	@npm --version >/dev/null 2>&1 || { echo "make e2e needs npm, $(2): https://nodejs.org"; exit 1; }
	@rm -rf $(@D) $(@D).part && mkdir -p $(@D).part && cp $(1) $(@D).part
	@npm ci --prefix $(@D).part --silent --no-audit --no-fund
endef

.PHONY: logql-lint

e2e: logql-lint

logql-lint: $(LOGQL_LINT)
	@mkdir -p $(TOOLS)/bin && ln -sf "../$(LOGQL_LINT:$(TOOLS)/%=%)" $(TOOLS)/bin/

$(LOGQL_LINT):
	$(call npm_installed,$(LOGQL_LINT_PARTS),for Grafana's grammar of LogQL)
	@mv $(@D).part $(@D)

# What looks at the nightly report in a browser, for people who cannot see it as others do.
AXE_PARTS := $(addprefix tests/e2e/axe/,package.json package-lock.json .npmrc)
AXE := $(TOOLS)/axe-$(firstword $(shell cat $(AXE_PARTS) | cksum))/axe.min.js

.PHONY: axe

e2e: axe

axe: $(AXE)
	@mkdir -p $(TOOLS)/bin && ln -sf "../$(AXE:$(TOOLS)/%=%)" $(TOOLS)/bin/
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || echo "make e2e needs Chromium, too, which cannot be built like these: apt-get install chromium chromium-driver"

$(AXE):
	$(call npm_installed,$(AXE_PARTS),for axe-core)
	@cp $(@D).part/node_modules/axe-core/axe.min.js $(@D).part/
	@mv $(@D).part $(@D)

# What runs the statements of the nightly job a second time: 456 MB, which nothing but `make e2e` needs.
SPARK := $(VENV)/.spark

.PHONY: spark

e2e: spark

spark: $(SPARK)
	@command -v java >/dev/null || echo "make e2e needs Java 17, too, which cannot be built like these: apt-get install default-jre-headless"

$(SPARK): $(INSTALLED)
	@echo "Installing Spark into $(VENV) (a minute or so) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[spark]'
	@touch $@

# The schemas that the operators of Kubernetes check what they are given with: their own, from their sources.
PROMETHEUS_OPERATOR := github.com/prometheus-operator/prometheus-operator@v0.93.0
OTEL_OPERATOR := github.com/open-telemetry/opentelemetry-operator@v0.142.0
CRDS := $(TOOLS)/crds-$(lastword $(subst @, ,$(PROMETHEUS_OPERATOR)))-$(lastword $(subst @, ,$(OTEL_OPERATOR)))

.PHONY: crds

e2e: crds

crds: $(CRDS)
	@mkdir -p $(TOOLS) && ln -sfn "$(notdir $(CRDS))" $(TOOLS)/crds

$(CRDS):
	@rm -rf $@.part && mkdir -p $@.part
	@for module in $(PROMETHEUS_OPERATOR)/example/prometheus-operator-crd $(OTEL_OPERATOR)/config/crd/bases; do \
	    folder=$${module#*@*/}; \
	    source=$$(go mod download -json "$${module%/$$folder}" | sed -n 's/^\t"Dir": "\(.*\)",$$/\1/p'); \
	    cp "$$source/$$folder"/*.yaml $@.part/ || exit 1; \
	done
	@chmod -R u+w $@.part && mv $@.part $@
