# Download data sets and build shards: make data-yfcc4k, data-im2gps3k, data-mp16, data-urls. See docs/data.md.
#
# Each target first prints what it downloads, from whom, the size, the terms and the folders; DRY_RUN=1 stops there. The same
# command resumes an interrupted download.
#
#   DRY_RUN      1: print only
#   YFCC4K_ROOT  IM2GPS3K_ROOT, MP16_ROOT, URLS_ROOT: the folder of the shards; downloads are in …-download
#   YFCC4K_ZIP   IM2GPS3K_ZIP: a URL or a file; also YFCC4K_PLACES and IM2GPS3K_PLACES, the coordinates
#   MP16_URLS    MP16_PLACES: MP16's lists, a URL or a file each; URLS, PLACES: those of data-urls
#   FLICKR_SIZE  z for 640 pixels, or another size letter of Flickr; the lists' own URLs give 500 pixels
#   PROCESSES THREADS   PROCESSES x THREADS links are open at a time, over all machines
#   DISTRIBUTOR  multiprocessing, ray or pyspark; SPARK_MASTER=spark://HOST:7077 for a Spark cluster
#   RETRY        1: download again the tars in which more than 1 % of the links failed for a temporary reason
#   TAR_ROWS     links per tar of img2dataset: an interruption loses at most one tar per process
#   VAL_SAMPLES  random photographs for the split val: by default 5000 of MP16 and none of data-urls
#   ARGS         for python -m geoclip.shards, such as ARGS='max_side_px=512'

YFCC4K_ROOT ?= data/yfcc4k
YFCC4K_ZIP ?= https://www.mediafire.com/file/3og8y3o6c9de3ye/yfcc4k.zip
YFCC4K_PLACES ?= https://raw.githubusercontent.com/CJ310177/TransGeoCLIP/656475f97fb42fdfde59a7b5ddb21daef9f2c57d/data/yfcc4k.csv
YFCC4K_SHA256 := 0aa69887d469a625c58f543055d502a82bb22fbecd547b43d557f40ac0605658

IM2GPS3K_ROOT ?= data/im2gps3k
IM2GPS3K_ZIP ?= https://www.mediafire.com/file/7ht7sn78q27o9we/im2gps3ktest.zip
IM2GPS3K_PLACES ?= https://raw.githubusercontent.com/ShramanPramanick/Transformer_Based_Geo-localization/0964b7d107a1f010bd0614d1390a0238960692bb/resources/im2gps3k_places365.csv
IM2GPS3K_SHA256 := 0f243d1e23cbb4ab8f0a83fa045ebae642dac2458fb94a1540db6f5f5588031d

MP16_ROOT ?= data/mp16
MP16_URLS ?= https://github.com/TIBHannover/GeoEstimation/releases/download/v1.0/mp16_urls.csv
MP16_PLACES ?= https://github.com/TIBHannover/GeoEstimation/releases/download/v1.0/mp16_places365.csv

URLS_ROOT ?= data/urls
URLS ?=
PLACES ?=
FLICKR_SIZE ?=
DISTRIBUTOR ?= multiprocessing
SPARK_MASTER ?=
PROCESSES ?= 2
THREADS ?= 8
TAR_ROWS ?= 1000
VAL_SAMPLES ?=
RETRY ?=
DRY_RUN ?=

# img2dataset pins webdataset < 0.3 and pandas < 3: it runs in an environment of its own.
I2D := .venv-img2dataset
I2D_STAMP := $(I2D)/.installed
I2D_MORE := $(if $(filter-out multiprocessing,$(DISTRIBUTOR)),$(I2D)/.installed-$(DISTRIBUTOR))
DOWNLOAD = $(ROOT)-download
# Spark's workers use the same Python. The session is created here, because img2dataset's own uses one machine only.
ON_SPARK = $(if $(filter pyspark,$(DISTRIBUTOR)),PYSPARK_PYTHON='$(abspath $(I2D)/bin/python)')
IN_SESSION = from pyspark.sql import SparkSession; from img2dataset.main import main; \
	SparkSession.builder.master("$(SPARK_MASTER)").getOrCreate(); main()

define YFCC4K_DESCRIPTION
YFCC4k: 4,536 photographs, the test set of Vo, Jacobs, Hays, "Revisiting IM2GPS in the Deep Learning Era", ICCV 2017.
  download  coordinates, 2.6 MB        $(YFCC4K_PLACES)
            photographs, about 0.5 GB  $(YFCC4K_ZIP)
            (the URL on https://github.com/lugiavn/revisiting-im2gps)
  terms     photographs of Flickr's users in YFCC100M, each under the Creative Commons licence that its author chose;
            the CSV names it: 1,348 BY-NC-SA, 1,196 BY-NC-ND, 740 BY, 533 BY-NC, 504 BY-SA, 215 BY-ND.
            The CSV is in a repository under MIT.
  folders   $(YFCC4K_ROOT)/test (shards) and $(YFCC4K_ROOT)-download (CSV and photographs, as YFCC4K_DIR=)
endef

define IM2GPS3K_DESCRIPTION
Im2GPS3k: 2,997 photographs with known locations, chosen by Vo, Jacobs, Hays, "Revisiting IM2GPS in the Deep Learning
Era", ICCV 2017, out of the Im2GPS of Hays, Efros, CVPR 2008.
  download  coordinates, 0.4 MB         $(IM2GPS3K_PLACES)
            3,000 photographs, 477 MB   $(IM2GPS3K_ZIP)
            (the URL on https://github.com/lugiavn/revisiting-im2gps; three have no coordinates)
  terms     photographs of Flickr's users; the publishers name no licence, so the authors have all rights:
            for research at your own judgement; do not redistribute. The CSV is in a repository under MIT.
  folders   $(IM2GPS3K_ROOT)/test (shards) and $(IM2GPS3K_ROOT)-download (CSV and photographs, as IM2GPS3K_DIR=)
endef

define MP16_DESCRIPTION
MP16: 4.72 million geotagged photographs of Flickr's users in YFCC100M.
  download  links, about 0.4 GB         $(MP16_URLS)
            coordinates, about 0.6 GB   $(MP16_PLACES)
            photographs, about 370 GB   from Flickr (staticflickr.com), each from its own link, by img2dataset. The size
            is that of 4.12 million in a copy on the Hugging Face Hub; one in eight had been deleted
  time      $(PROCESSES) x $(THREADS) links at a time; 100 photographs a second would take 13 hours. Flickr limits the rate
            (429 Too Many Requests): such links are counted, and RETRY=1 requests them again
  terms     each photograph under the Creative Commons licence that its author chose, see
            https://multimediacommons.wordpress.com/yfcc100m-core-dataset/; some forbid commercial use or changes.
            Deleted and private photographs cannot be downloaded, and should not be. The lists are TIB's, under GPL-3.0.
            TIB withdrew its code and models in December 2025 because geo-localisation can be misused; first
            read "Responsible use" in README.md
  folders   $(MP16_ROOT)/train and $(MP16_ROOT)/val (shards) and $(MP16_ROOT)-download (as large again,
            until you delete it)
  instead   the same photographs as one archive: https://huggingface.co/datasets/Jia-py/MP16-Pro, see docs/data.md
endef

define URLS_DESCRIPTION
Photographs from a list of links.
  download  the list: $(URLS) $(PLACES); then every link in it, by img2dataset, $(PROCESSES) x $(THREADS) at a time
            (a Flickr photograph of 500 pixels has about 90 kB)
  terms     those of the owners: a link is no licence
  folders   $(URLS_ROOT) (shards) and $(URLS_ROOT)-download (may be deleted at the end)
endef

.PHONY: data-yfcc4k data-im2gps3k data-mp16 data-urls benchmark-shards url-shards

data-yfcc4k: ## shards of YFCC4k, 4,536 photographs; DRY_RUN=1 only prints what it would download
	$(info $(YFCC4K_DESCRIPTION))
	@$(if $(DRY_RUN),:,$(MAKE) --no-print-directory benchmark-shards NAME=yfcc4k ROOT='$(YFCC4K_ROOT)' \
		ZIP='$(YFCC4K_ZIP)' PLACES='$(YFCC4K_PLACES)' SHA256='$(if $(findstring ://,$(YFCC4K_PLACES)),$(YFCC4K_SHA256))')

data-im2gps3k: ## shards of Im2GPS3k, 2,997 photographs
	$(info $(IM2GPS3K_DESCRIPTION))
	@$(if $(DRY_RUN),:,$(MAKE) --no-print-directory benchmark-shards NAME=im2gps3k ROOT='$(IM2GPS3K_ROOT)' \
		ZIP='$(IM2GPS3K_ZIP)' PLACES='$(IM2GPS3K_PLACES)' SHA256='$(if $(findstring ://,$(IM2GPS3K_PLACES)),$(IM2GPS3K_SHA256))')

data-mp16: ## shards of MP16, 4.72 million links: hundreds of gigabytes, hours to days
	$(info $(MP16_DESCRIPTION))
	@$(if $(DRY_RUN),:,$(MAKE) --no-print-directory url-shards ROOT='$(MP16_ROOT)' \
		VAL_SAMPLES='$(or $(VAL_SAMPLES),5000)' URLS='$(MP16_URLS)' PLACES='$(MP16_PLACES)')

data-urls: ## shards from a list of links: URLS=list.csv [PLACES=coordinates.csv] URLS_ROOT=data/name
	$(if $(URLS),$(info $(URLS_DESCRIPTION)),$(error name the list: make data-urls URLS=list.csv URLS_ROOT=data/name))
	@$(if $(DRY_RUN),:,$(MAKE) --no-print-directory url-shards ROOT='$(URLS_ROOT)')

benchmark-shards: $(STAMP)
	@places=$$(tools/fetch.sh '$(PLACES)' '$(DOWNLOAD)' $(SHA256)) && \
	zip=$$(tools/fetch.sh '$(ZIP)' '$(DOWNLOAD)') && \
	if [ ! -f '$(DOWNLOAD)/photographs/.unpacked' ]; then \
		echo "unpacking $$zip" && $(RUN) -m zipfile -e "$$zip" '$(DOWNLOAD)/photographs' && \
		touch '$(DOWNLOAD)/photographs/.unpacked'; \
	fi && \
	places="$$(cd "$$(dirname "$$places")" && pwd)/$$(basename "$$places")" && set -x && \
	$(RUN) -m geoclip.shards benchmark=$(NAME) benchmark.root='$(DOWNLOAD)' benchmark.metadata="$$places" \
		root='$(ROOT)' $(ARGS)

url-shards: $(STAMP) $(I2D_STAMP) $(I2D_MORE)
	@urls=$$(tools/fetch.sh '$(URLS)' '$(DOWNLOAD)') && \
	places=$(if $(PLACES),$$(tools/fetch.sh '$(PLACES)' '$(DOWNLOAD)')) && \
	$(RUN) -m tools.url_list --urls "$$urls" $${places:+--places "$$places"} --out '$(DOWNLOAD)/list' \
		--tar-rows $(TAR_ROWS) --flickr-size '$(FLICKR_SIZE)'
	@$(if $(RETRY),$(RUN) -m tools.download_report --retry --list '$(DOWNLOAD)/list' --tars '$(DOWNLOAD)/tars',:)
	NO_ALBUMENTATIONS_UPDATE=1 $(ON_SPARK) $(I2D)/bin/$(if $(SPARK_MASTER),python -c '$(IN_SESSION)',img2dataset) \
		--url_list '$(abspath $(DOWNLOAD)/list/urls)' --input_format jsonl --url_col url \
		--save_additional_columns '["img_id","lat","lon"]' --output_folder '$(abspath $(DOWNLOAD)/tars)' --output_format webdataset \
		--number_sample_per_shard $(TAR_ROWS) --incremental_mode incremental --resize_mode no --skip_reencode True \
		--extract_exif False --compute_hash sha256 --retries 2 --timeout 20 --user_agent_token geoclip-ablations \
		--processes_count $(PROCESSES) --thread_count $(THREADS) --distributor $(DISTRIBUTOR) --enable_wandb False
	@$(RUN) -m tools.download_report --list '$(DOWNLOAD)/list' --tars '$(DOWNLOAD)/tars'
	$(RUN) -m geoclip.shards source=wds input='$(DOWNLOAD)/tars' columns.key=img_id root='$(ROOT)' \
		val_samples=$(or $(VAL_SAMPLES),0) $(ARGS)

$(I2D_STAMP): constraints-img2dataset.txt
	$(PYTHON) -m venv $(I2D)
	@echo "Installing img2dataset, which downloads links, into $(I2D): a few minutes, once"
	$(I2D)/bin/python -m pip install -q --disable-pip-version-check -c constraints-img2dataset.txt img2dataset 'standard-imghdr; python_version >= "3.13"'
	@touch $@

$(I2D)/.installed-ray $(I2D)/.installed-pyspark: $(I2D)/.installed-%: $(I2D_STAMP)
	$(I2D)/bin/python -m pip install -q --disable-pip-version-check -c constraints-img2dataset.txt $*
	@touch $@
