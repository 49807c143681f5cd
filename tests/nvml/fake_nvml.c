/* A driver's library (NVML) that reads from a script what it answers, so that a machine without a GPU can
 * test how GPUs are read.
 *
 * The script lies beside the library, under its name with `.script` behind it. A line is
 *
 *     0 power_mw 250000 300000 gpu_lost
 *
 * a device, what is asked of it, and the answer to the first, second ... time it is asked; the last one
 * stays. `0.1` is the second MIG instance of device 0; a device is there when a line names it. An answer of
 * several numbers has a `/` between them. In place of an answer may stand the name of an error, or `hang`.
 * What no line answers is not supported. When it is shut down, the library writes beside itself, with
 * `.calls` behind its name, how often each line was asked, and the processor time of the thread that it was
 * loaded and asked by.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { OK = 0, INVALID = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6, TOO_SMALL = 7 };
enum { NOT_LOADED = 9, TIMEOUT = 10, GPU_LOST = 15, UNKNOWN = 999 };
enum { LINES = 512, ANSWERS = 32, DEVICES = 32, INSTANCES = 8 };

static const struct { const char *name; int code; } ERRORS[] = {
    { "not_supported", NOT_SUPPORTED }, { "no_permission", NO_PERMISSION },
    { "not_loaded", NOT_LOADED },       { "timeout", TIMEOUT },
    { "gpu_lost", GPU_LOST },           { "unknown", UNKNOWN },
};

struct line {
    char device[16], question[32];
    char *answers[ANSWERS];
    int count, asked;
};
static struct line lines[LINES];
static int line_count;

/* A handle is a device, or a MIG instance of one. */
struct device { int is_there; char name[16]; struct device *instances; };
static struct device gpus[DEVICES], instances[DEVICES][INSTANCES];

static void path(char *to, size_t size, const char *ending) {
    Dl_info self;
    dladdr((void *)path, &self);
    snprintf(to, size, "%s%s", self.dli_fname, ending);
}

static struct line *find(const char *device, const char *question) {
    for (int i = 0; i < line_count; i++)
        if (!strcmp(lines[i].device, device) && !strcmp(lines[i].question, question))
            return &lines[i];
    return NULL;
}

/* The next answer, or the error in its place. */
static int next(const char *device, const char *question, const char **answer) {
    struct line *line = find(device, question);
    if (!line) return NOT_SUPPORTED;
    int turn = line->asked++;
    *answer = line->answers[turn < line->count ? turn : line->count - 1];
    if (!strcmp(*answer, "hang")) sleep(60);
    for (size_t i = 0; i < sizeof ERRORS / sizeof *ERRORS; i++)
        if (!strcmp(*answer, ERRORS[i].name)) return ERRORS[i].code;
    return OK;
}

/* The `place`th number of an answer. */
static double number(const char *answer, int place) {
    while (place-- && answer) answer = strchr(answer, '/') ? strchr(answer, '/') + 1 : NULL;
    return answer ? atof(answer) : 0;
}

static int one(struct device *device, const char *question, double *value) {
    const char *answer;
    int code = next(device->name, question, &answer);
    if (code == OK) *value = number(answer, 0);
    return code;
}

static int whole(struct device *device, const char *question, unsigned *value) {
    double answer = 0;
    int code = one(device, question, &answer);
    *value = (unsigned)answer;
    return code;
}

static int text(const char *device, const char *question, char *to, unsigned size) {
    const char *answer;
    int code = next(device, question, &answer);
    if (code == OK) snprintf(to, size, "%s", answer);
    return code;
}

static void read_script(void) {
    char name[4096], text[4096];
    path(name, sizeof name, ".script");
    FILE *script = fopen(name, "r");
    if (!script) return;
    while (line_count < LINES && fgets(text, sizeof text, script)) {
        struct line *line = &lines[line_count];
        char *word = strtok(text, " \n");
        if (!word) continue;
        snprintf(line->device, sizeof line->device, "%s", word);
        if ((word = strtok(NULL, " \n"))) snprintf(line->question, sizeof line->question, "%s", word);
        while (line->count < ANSWERS && (word = strtok(NULL, " \n"))) line->answers[line->count++] = strdup(word);
        line_count++;
        int gpu, instance;
        int parts = sscanf(line->device, "%d.%d", &gpu, &instance);
        if (parts < 1 || gpu < 0 || DEVICES <= gpu) continue;
        struct device *device = &gpus[gpu];
        device->instances = instances[gpu];
        if (parts == 2 && 0 <= instance && instance < INSTANCES) device = &instances[gpu][instance];
        device->is_there = 1;
        snprintf(device->name, sizeof device->name, "%s", line->device);
    }
    fclose(script);
}

int nvmlInit_v2(void) {
    const char *answer;
    if (!line_count) read_script();
    int code = next("driver", "init", &answer);
    return code == NOT_SUPPORTED ? OK : code;
}

int nvmlShutdown(void) {
    char name[4096];
    path(name, sizeof name, ".calls");
    FILE *calls = fopen(name, "w");
    for (int i = 0; calls && i < line_count; i++)
        fprintf(calls, "%s %s %d\n", lines[i].device, lines[i].question, lines[i].asked);
    struct timespec spent;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &spent);
    if (calls) fprintf(calls, "thread cpu_us %lld\n", spent.tv_sec * 1000000LL + spent.tv_nsec / 1000);
    if (calls) fclose(calls);
    return OK;
}

int nvmlSystemGetDriverVersion(char *version, unsigned size) { return text("driver", "version", version, size); }

int nvmlSystemGetCudaDriverVersion_v2(int *version) {
    const char *answer;
    int code = next("driver", "cuda", &answer);
    if (code == OK) *version = atoi(answer);
    return code;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    for (*count = 0; *count < DEVICES && gpus[*count].is_there; ++*count) {}
    return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct device **device) {
    double answer;
    *device = &gpus[index];
    int code = one(*device, "open", &answer);
    return code == NOT_SUPPORTED ? OK : code;
}

int nvmlDeviceGetMigMode(struct device *device, unsigned *current, unsigned *pending) {
    for (int i = 0; device->instances && i < INSTANCES; i++)
        if (device->instances[i].is_there) return *current = *pending = 1, OK;
    return NOT_SUPPORTED;
}

int nvmlDeviceGetMaxMigDeviceCount(struct device *device, unsigned *count) {
    (void)device;
    *count = INSTANCES;
    return OK;
}

int nvmlDeviceGetMigDeviceHandleByIndex(struct device *device, unsigned index, struct device **instance) {
    if (!device->instances || INSTANCES <= index || !device->instances[index].is_there) return NOT_FOUND;
    *instance = &device->instances[index];
    return OK;
}

int nvmlDeviceGetName(struct device *device, char *name, unsigned size) { return text(device->name, "name", name, size); }
int nvmlDeviceGetUUID(struct device *device, char *uuid, unsigned size) { return text(device->name, "uuid", uuid, size); }

int nvmlDeviceGetUtilizationRates(struct device *device, unsigned *gpu_and_memory) {
    const char *answer;
    int code = next(device->name, "utilization", &answer);
    if (code == OK)
        for (int i = 0; i < 2; i++) gpu_and_memory[i] = (unsigned)number(answer, i);
    return code;
}

struct memory { unsigned version; unsigned long long total, reserved, free, used; };

/* Asked for the total before the first reading, so that an answer is `used/free` and the total their sum. */
int nvmlDeviceGetMemoryInfo_v2(struct device *device, struct memory *memory) {
    const char *answer;
    if (memory->version != (sizeof *memory | 2u << 24)) return INVALID;
    int code = next(device->name, "memory_mib", &answer);
    if (code != OK) return code;
    memory->used = (unsigned long long)(number(answer, 0) * 1048576);
    memory->free = (unsigned long long)(number(answer, 1) * 1048576);
    memory->reserved = 0;
    memory->total = memory->used + memory->free;
    return OK;
}

int nvmlDeviceGetPowerUsage(struct device *device, unsigned *mw) { return whole(device, "power_mw", mw); }

int nvmlDeviceGetTotalEnergyConsumption(struct device *device, unsigned long long *mj) {
    double answer = 0;
    int code = one(device, "energy_mj", &answer);
    *mj = (unsigned long long)answer;
    return code;
}

int nvmlDeviceGetTemperature(struct device *device, unsigned sensor, unsigned *c) {
    return sensor ? INVALID : whole(device, "temperature_c", c);
}

int nvmlDeviceGetClockInfo(struct device *device, unsigned which, unsigned *mhz) {
    static const char *const QUESTIONS[] = { "graphics_clock_mhz", "sm_clock_mhz", "memory_clock_mhz" };
    return which < 3 ? whole(device, QUESTIONS[which], mhz) : INVALID;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(struct device *device, unsigned long long *reasons) {
    double answer = 0;
    int code = one(device, "throttle_bits", &answer);
    *reasons = (unsigned long long)answer;
    return code;
}

int nvmlDeviceGetPcieThroughput(struct device *device, unsigned receives, unsigned *kib_per_s) {
    return whole(device, receives ? "pcie_rx_kib_per_s" : "pcie_tx_kib_per_s", kib_per_s);
}

struct process { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; };

/* Processes are `pid:mib`, with `/` between them. */
int nvmlDeviceGetComputeRunningProcesses_v3(struct device *device, unsigned *count, struct process *processes) {
    struct line *line = find(device->name, "processes");
    const char *answer;
    if (!line) return NOT_SUPPORTED;
    int code = next(device->name, "processes", &answer);
    if (code != OK) return code;
    unsigned room = *count, all = 1;
    for (const char *at = answer; *at; at++) all += *at == '/';
    *count = all;
    if (!processes || room < all) {
        line->asked--;
        return TOO_SMALL;
    }
    for (unsigned i = 0; i < all; i++) {
        double mib = 0;
        processes[i] = (struct process){ .gpu_instance = ~0u, .compute_instance = ~0u };
        sscanf(answer, "%u:%lf", &processes[i].pid, &mib);
        processes[i].used = (unsigned long long)(mib * 1048576);
        if (i + 1 < all) answer = strchr(answer, '/') + 1;
    }
    return OK;
}

/* Performance monitoring. An answer is pcie_rx/pcie_tx/nvlink_rx/nvlink_tx, MiB/s, since the sample before. */
struct support { unsigned version, is_supported; };
struct sample { const char *answer; };
struct metric { unsigned id; int code; double value; const char *short_name, *long_name, *unit; };
struct metrics { unsigned version, count; struct sample *from, *to; struct metric metrics[]; };

int nvmlGpmQueryDeviceSupport(struct device *device, struct support *support) {
    support->is_supported = find(device->name, "traffic_mib_per_s") != NULL;
    return OK;
}

int nvmlGpmSampleAlloc(struct sample **sample) { return (*sample = calloc(1, sizeof **sample)) ? OK : UNKNOWN; }

int nvmlGpmSampleFree(struct sample *sample) {
    free(sample);
    return OK;
}

int nvmlGpmSampleGet(struct device *device, struct sample *sample) {
    return next(device->name, "traffic_mib_per_s", &sample->answer);
}

int nvmlGpmMetricsGet(struct metrics *request) {
    static const unsigned IDS[] = { 21, 20, 60, 61 };
    for (unsigned i = 0; i < request->count; i++) {
        struct metric *metric = &request->metrics[i];
        metric->code = NOT_SUPPORTED;
        for (int place = 0; place < 4; place++)
            if (metric->id == IDS[place]) {
                metric->code = OK;
                metric->value = number(request->to->answer, place);
            }
    }
    return OK;
}
