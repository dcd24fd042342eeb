/* Lines and their disclosures: text, hashes and base64 (chain._chained, disclosure.py). */

/* libcrypto.so.3, declared here so that its headers need not be installed. */
typedef struct evp_md_st EVP_MD;
typedef struct evp_md_ctx_st EVP_MD_CTX;
extern EVP_MD *EVP_MD_fetch(void *library, const char *algorithm, const char *properties);
extern EVP_MD_CTX *EVP_MD_CTX_new(void);
extern int EVP_DigestInit_ex2(EVP_MD_CTX *ctx, const EVP_MD *type, const void *params);
extern int EVP_DigestUpdate(EVP_MD_CTX *ctx, const void *data, size_t size);
extern int EVP_DigestFinal_ex(EVP_MD_CTX *ctx, unsigned char *md, unsigned int *size);

#define BEGINNING 32   /* bytes of disclosure.beginnings */
#define DIGEST 43      /* characters of a SHA-256 in base64url without padding */
#define MOST_TAILS 16  /* more in one event than any form has */
#define BEFORE (-1)    /* forms.BEFORE */
#define KEPT (1 << 20) /* bytes of room that a buffer keeps between two calls */

static EVP_MD *sha256;
static EVP_MD_CTX *context;

typedef struct {
    char *data;
    size_t size, room;
} Buffer;

static int grow(Buffer *b, size_t more)
{
    if (b->room - b->size >= more)
        return 1;
    if (more > SIZE_MAX / 4 || b->size > SIZE_MAX / 4) {
        PyErr_NoMemory();
        return 0;
    }
    size_t room = (b->size + more) * 2;
    char *data = PyMem_Realloc(b->data, room);
    if (data == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    b->data = data;
    b->room = room;
    return 1;
}

/* Give back the room that one large text took. */
static void shrink(Buffer *b)
{
    if (b->room > KEPT) {
        PyMem_Free(b->data);
        *b = (Buffer){NULL, 0, 0};
    }
}

static int put(Buffer *b, const char *data, size_t size)
{
    if (!grow(b, size))
        return 0;
    memcpy(b->data + b->size, data, size);
    b->size += size;
    return 1;
}

static int put_bytes(Buffer *b, PyObject *bytes)
{
    if (!PyBytes_CheckExact(bytes)) {
        PyErr_SetString(PyExc_TypeError, "not bytes");
        return 0;
    }
    return put(b, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
}

static int put_number(Buffer *b, long long value)
{
    char text[20], *at = text + sizeof text;
    unsigned long long left = value < 0 ? 0 - (unsigned long long)value : (unsigned long long)value;
    do
        *--at = (char)('0' + left % 10);
    while ((left /= 10) > 0);
    if (value < 0)
        *--at = '-';
    return put(b, at, (size_t)(text + sizeof text - at));
}

static int hashed(unsigned char out[32], const char *first, size_t first_size, const char *data, size_t size)
{
    if (EVP_DigestInit_ex2(context, sha256, NULL) == 1 && EVP_DigestUpdate(context, first, first_size) == 1
        && EVP_DigestUpdate(context, data, size) == 1 && EVP_DigestFinal_ex(context, out, NULL) == 1)
        return 1;
    PyErr_SetString(PyExc_RuntimeError, "SHA-256 failed");
    return 0;
}

static void base64url(char out[DIGEST], const unsigned char in[32])
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for (int i = 0; i < 10; i++) {
        uint32_t v = (uint32_t)in[3 * i] << 16 | (uint32_t)in[3 * i + 1] << 8 | in[3 * i + 2];
        out[4 * i] = alphabet[v >> 18];
        out[4 * i + 1] = alphabet[v >> 12 & 63];
        out[4 * i + 2] = alphabet[v >> 6 & 63];
        out[4 * i + 3] = alphabet[v & 63];
    }
    uint32_t v = (uint32_t)in[30] << 16 | (uint32_t)in[31] << 8;
    out[40] = alphabet[v >> 18];
    out[41] = alphabet[v >> 12 & 63];
    out[42] = alphabet[v >> 6 & 63];
}

/* What follows the salt in a disclosure (disclosure.encoded_tail): base64url of `",` name `,` value `]`. */
static PyObject *encoded_tail(PyObject *self, PyObject *const *args, Py_ssize_t argc)
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    (void)self;
    if (argc != 2 || !PyBytes_CheckExact(args[0]) || !PyBytes_CheckExact(args[1])) {
        PyErr_SetString(PyExc_TypeError, "a tail is made of the bytes of a name and of a value");
        return NULL;
    }
    const struct { const char *data; Py_ssize_t size; } parts[] = {
        {"\",", 2}, {PyBytes_AS_STRING(args[0]), PyBytes_GET_SIZE(args[0])}, {",", 1},
        {PyBytes_AS_STRING(args[1]), PyBytes_GET_SIZE(args[1])}, {"]", 1},
    };
    if (parts[1].size > PY_SSIZE_T_MAX / 8 || parts[3].size > PY_SSIZE_T_MAX / 8)
        return PyErr_NoMemory();
    Py_ssize_t size = parts[1].size + parts[3].size + 4;
    PyObject *made = PyBytes_FromStringAndSize(NULL, (size * 4 + 2) / 3);
    if (made == NULL)
        return NULL;
    char *to = PyBytes_AS_STRING(made);
    uint32_t bits = 0;
    int kept = 0; /* bits that are not written yet */
    for (int i = 0; i < 5; i++)
        for (Py_ssize_t at = 0; at < parts[i].size; at++) {
            bits = bits << 8 | (unsigned char)parts[i].data[at];
            for (kept += 8; kept >= 6; kept -= 6)
                *to++ = alphabet[bits >> (kept - 6) & 63];
        }
    if (kept > 0)
        *to++ = alphabet[bits << (6 - kept) & 63];
    return made;
}

static int by_text(const void *a, const void *b)
{
    return memcmp(a, b, DIGEST);
}

/* Add the disclosures of one event to `secrets` and their digests to `digests`; take their salts from the end of `salts`. */
static int committed(Buffer *secrets, char digests[][DIGEST], Py_ssize_t *count, Py_ssize_t *salts_left, PyObject *salts,
                     PyObject *tails, long long seq)
{
    if (!PyTuple_CheckExact(tails)) {
        PyErr_SetString(PyExc_TypeError, "tails are a tuple");
        return 0;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(tails); i++) {
        PyObject *tail = PyTuple_GET_ITEM(tails, i);
        if (*count >= MOST_TAILS || *salts_left <= 0) {
            PyErr_SetString(PyExc_IndexError, "more disclosures than salts or places");
            return 0;
        }
        PyObject *salt = PyList_GET_ITEM(salts, *salts_left - 1);
        if (!PyBytes_CheckExact(tail) || !PyBytes_CheckExact(salt) || PyBytes_GET_SIZE(salt) != BEGINNING) {
            PyErr_SetString(PyExc_TypeError, "a tail or a beginning is not what it should be");
            return 0;
        }
        unsigned char digest[32];
        if (!put(secrets, "{\"d\":\"", 6) || !put(secrets, PyBytes_AS_STRING(salt), BEGINNING) || !put_bytes(secrets, tail)
            || !put(secrets, "\",\"seq\":", 8) || !put_number(secrets, seq) || !put(secrets, "}\n", 2)
            || !hashed(digest, PyBytes_AS_STRING(salt), BEGINNING, PyBytes_AS_STRING(tail), (size_t)PyBytes_GET_SIZE(tail)))
            return 0;
        base64url(digests[(*count)++], digest);
        (*salts_left)--;
    }
    return 1;
}

/* Add one event's line; `prev` is the hash of the line before, in hex, and becomes this one's. */
static int line(Buffer *lines, PyObject *pieces, Py_ssize_t wanted, char digests[][DIGEST], Py_ssize_t count, long long mono_us,
                char prev[64], int refers, long long ref, long long seq, PyObject *name, const char *ts, size_t ts_size)
{
    static const char hex[] = "0123456789abcdef";
    if (!PyTuple_CheckExact(pieces) || PyTuple_GET_SIZE(pieces) != wanted) {
        PyErr_SetString(PyExc_TypeError, "a form has not as many pieces as places");
        return 0;
    }
    size_t start = lines->size;
    Py_ssize_t at = 0;
#define PIECE put_bytes(lines, PyTuple_GET_ITEM(pieces, at++))
    if (!PIECE)
        return 0;
    if (count > 0) {
        for (Py_ssize_t i = 0; i < count; i++)
            if ((i > 0 && !put(lines, "\",\"", 3)) || !put(lines, digests[i], DIGEST))
                return 0;
        if (!PIECE)
            return 0;
    }
    if (!put_number(lines, mono_us) || !PIECE || !put(lines, prev, 64) || !PIECE)
        return 0;
    if (refers && (!put_number(lines, ref) || !PIECE))
        return 0;
    if (!put_number(lines, seq) || !PIECE || !put_bytes(lines, name) || !PIECE || !put(lines, ts, ts_size) || !PIECE)
        return 0;
#undef PIECE
    unsigned char digest[32];
    if (!hashed(digest, "\0", 1, lines->data + start, lines->size - start))
        return 0;
    for (int i = 0; i < 32; i++) {
        prev[2 * i] = hex[digest[i] >> 4];
        prev[2 * i + 1] = hex[digest[i] & 15];
    }
    return put(lines, "\n", 1);
}

static int event(Buffer *lines, Buffer *secrets, PyObject *draft, long long seq, char prev[64], long long mono_us, PyObject *name,
                 const char *ts, size_t ts_size, PyObject *salts, Py_ssize_t *salts_left)
{
    if (!Py_IS_TYPE(draft, &DraftType)) {
        PyErr_SetString(PyExc_TypeError, "only formed drafts are chained");
        return 0;
    }
    Shape *form = (Shape *)((FormedDraft *)draft)->form;
    if (form->tails == NULL || form->bare == NULL || form->committing == NULL) {
        PyErr_SetString(PyExc_TypeError, "a form is not whole");
        return 0;
    }
    char digests[MOST_TAILS][DIGEST];
    Py_ssize_t count = 0;
    if (!committed(secrets, digests, &count, salts_left, salts, form->tails, seq)
        || !committed(secrets, digests, &count, salts_left, salts, ((FormedDraft *)draft)->given, seq))
        return 0;
    qsort(digests, (size_t)count, DIGEST, by_text); /* the order of names would say something (RFC 9901 §4.2.4.1) */
    long long number = 0;
    if (form->refers) {
        number = PyLong_AsLongLong(((FormedDraft *)draft)->ref);
        if (number == -1 && PyErr_Occurred())
            return 0;
        if (number == BEFORE)
            number = seq - 1;
    }
    return line(lines, count > 0 ? form->committing : form->bare, 6 + form->refers + (count > 0), digests, count, mono_us, prev,
                form->refers, number, seq, name, ts, ts_size);
}

static Buffer lines, secrets;

/* Encode drafts into `lines` and `secrets`, behind the line whose hash is `prev`, and take the salts that this used. */
static int encode(PyObject *const *drafts, Py_ssize_t count, long long seq, char prev[64], long long mono_us, PyObject *name,
                  const char *ts, size_t ts_size, PyObject *salts)
{
    Py_ssize_t had = PyList_GET_SIZE(salts), left = had;
    lines.size = secrets.size = 0;
    if (!grow(&lines, 2048) || !grow(&secrets, 2048))
        return 0;
    for (Py_ssize_t i = 0; i < count; i++)
        if (!event(&lines, &secrets, drafts[i], seq + i, prev, mono_us, name, ts, ts_size, salts, &left))
            return 0;
    return left == had || PyList_SetSlice(salts, left, had, NULL) == 0;
}
