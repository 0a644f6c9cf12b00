/* SPDX-License-Identifier: BSD-3-Clause */
#include "chart.h"

#include <math.h>
#include <stddef.h>

/* --- table --------------------------------------------------------------- */

int chart_write_csv(const char *path, const chart_row_t *rows, size_t rows_len)
{
    FILE *file = fopen(path, "w");
    int failed;

    if (!file)
        return -1;
    fprintf(file,
            "step,epoch,seconds,train_loss,held_out_loss,held_out_accuracy,"
            "members\n");
    for (size_t i = 0; i < rows_len; i++)
        fprintf(file, "%u,%.3f,%.3f,%.5f,%.5f,%.5f,%u\n", rows[i].step,
                rows[i].epoch, rows[i].seconds, rows[i].train_loss,
                rows[i].held_out_loss, rows[i].accuracy, rows[i].members);
    failed = ferror(file);
    return fclose(file) != 0 || failed ? -1 : 0;
}

/* --- picture ------------------------------------------------------------- */

/* Two panels, one below the other, over the same epochs: two scales in one
 * panel would suggest crossings that mean nothing. */
enum {
    WIDTH = 720,
    HEIGHT = 560,
    LEFT = 72,
    RIGHT = 24,
    LOSS_TOP = 56,
    ACCURACY_TOP = 304,
    PANEL_HEIGHT = 192,
    LABEL_WIDTH = 14, /* of a number of members */
};

static const char train_colour[] = "#1f77b4";
static const char held_out_colour[] = "#d95f02";
static const char accuracy_colour[] = "#1b7837";
static const char fewer_colour[] = "#b2182b";
static const char more_colour[] = "#2166ac";

/* A panel's scales, from values to places on the page. */
struct panel {
    FILE *file;
    int top;
    double epochs;   /* at the right edge; 0 at the left one */
    double low, high; /* at the bottom, at the top */
};

static double place_x(const struct panel *p, double epoch)
{
    return LEFT + (WIDTH - LEFT - RIGHT) * epoch / p->epochs;
}

static double place_y(const struct panel *p, double value)
{
    double share = (value - p->low) / (p->high - p->low);

    return p->top + PANEL_HEIGHT * (1.0 - share);
}

/* The step between ticks: 1, 2 or 5 times a power of ten, about `ticks`. */
static double tick_step(double range, int ticks)
{
    double rough = range / ticks;
    double power = pow(10.0, floor(log10(rough)));
    double digit = rough / power;

    return power * (digit < 1.5 ? 1 : digit < 3.5 ? 2 : digit < 7.5 ? 5 : 10);
}

static void draw_frame(const struct panel *p, const char *label,
                       const char *format)
{
    double x_step = fmax(tick_step(p->epochs, 8), 1.0);
    double y_step = tick_step(p->high - p->low, 5);
    int bottom = p->top + PANEL_HEIGHT;

    for (int i = 0; p->low + i * y_step <= p->high + y_step / 100; i++) {
        double y = place_y(p, p->low + i * y_step);

        fprintf(p->file,
                "<line class='grid' x1='%d' y1='%.1f' x2='%d' y2='%.1f'/>\n"
                "<text x='%d' y='%.1f' text-anchor='end'>",
                LEFT, y, WIDTH - RIGHT, y, LEFT - 8, y + 4);
        fprintf(p->file, format, p->low + i * y_step);
        fprintf(p->file, "</text>\n");
    }
    for (int i = 0; i * x_step <= p->epochs + x_step / 100; i++)
        fprintf(p->file,
                "<line class='axis' x1='%.1f' y1='%d' x2='%.1f' y2='%d'/>\n"
                "<text x='%.1f' y='%d' text-anchor='middle'>%g</text>\n",
                place_x(p, i * x_step), bottom, place_x(p, i * x_step),
                bottom + 5, place_x(p, i * x_step), bottom + 19, i * x_step);
    fprintf(p->file,
            "<path class='axis' d='M%d %d V%d H%d'/>\n"
            "<text transform='translate(20 %d) rotate(-90)' "
            "text-anchor='middle'>%s</text>\n",
            LEFT, p->top, bottom, WIDTH - RIGHT, p->top + PANEL_HEIGHT / 2,
            label);
}

/* `offset`: of the member of chart_row_t to draw. */
static void draw_curve(const struct panel *p, const char *colour, double factor,
                       size_t offset, const chart_row_t *rows, size_t rows_len)
{
    fprintf(p->file,
            "<clipPath id='panel%d'><rect x='%d' y='%d' width='%d' "
            "height='%d'/></clipPath>\n"
            "<polyline class='curve' clip-path='url(#panel%d)' stroke='%s' "
            "points='",
            p->top, LEFT, p->top, WIDTH - LEFT - RIGHT, PANEL_HEIGHT, p->top,
            colour);
    for (size_t i = 0; i < rows_len; i++) {
        const char *row = (const char *)&rows[i];
        double value = *(const double *)(const void *)(row + offset);

        fprintf(p->file, "%.1f,%.1f ", place_x(p, rows[i].epoch),
                place_y(p, value * factor));
    }
    fprintf(p->file, "'/>\n");
}

/* The line-th entry of a panel's legend; at the right edge, `y` from above. */
static void draw_legend(const struct panel *p, int y, const char *colour,
                        const char *dashes, const char *text)
{
    int x = WIDTH - RIGHT - 190;

    fprintf(p->file,
            "<line x1='%d' y1='%d' x2='%d' y2='%d' stroke='%s' "
            "stroke-width='2' stroke-dasharray='%s'/>\n"
            "<text x='%d' y='%d'>%s</text>\n",
            x, p->top + y, x + 26, p->top + y, colour, dashes, x + 34,
            p->top + y + 4, text);
}

static void draw_loss(FILE *file, double epochs, const chart_row_t *rows,
                      size_t rows_len)
{
    struct panel p = { file, LOSS_TOP, epochs, 0.0, 0.0 };
    double step;

    for (size_t i = 0; i < rows_len; i++)
        p.high = fmax(p.high, fmax(rows[i].train_loss, rows[i].held_out_loss));
    if (!(p.high > 0.0))
        p.high = 1.0;
    step = tick_step(p.high, 5);
    p.high = step * ceil(p.high / step);
    draw_frame(&p, "cross-entropy loss", "%g");
    draw_curve(&p, train_colour, 1.0, offsetof(chart_row_t, train_loss), rows,
               rows_len);
    draw_curve(&p, held_out_colour, 1.0, offsetof(chart_row_t, held_out_loss),
               rows, rows_len);
    draw_legend(&p, 16, train_colour, "none", "training digits");
    draw_legend(&p, 36, held_out_colour, "none", "held-out digits");
}

static void draw_accuracy(FILE *file, double epochs, double goal,
                          const chart_row_t *rows, size_t rows_len)
{
    /* The first scores are near chance; what matters happens above 80 %. */
    struct panel p = { file, ACCURACY_TOP, epochs, 80.0, 100.0 };
    char text[32];

    draw_frame(&p, "held-out accuracy, %", "%.0f");
    fprintf(file,
            "<line x1='%d' y1='%.1f' x2='%d' y2='%.1f' stroke='#777' "
            "stroke-dasharray='6 4'/>\n",
            LEFT, place_y(&p, goal * 100), WIDTH - RIGHT,
            place_y(&p, goal * 100));
    draw_curve(&p, accuracy_colour, 100.0, offsetof(chart_row_t, accuracy),
               rows, rows_len);
    snprintf(text, sizeof(text), "goal: %.0f %%", goal * 100);
    draw_legend(&p, 130, accuracy_colour, "none", "held-out digits");
    draw_legend(&p, 150, "#777", "6 4", text);
}

static void draw_members(FILE *file, double x, const char *colour,
                         uint32_t members)
{
    fprintf(file,
            "<text x='%.1f' y='%d' text-anchor='middle' font-size='11' "
            "fill='%s'>%u</text>\n",
            x, ACCURACY_TOP - 8, colour, members);
}

/* Across both panels; how many members there are since, between them. Of marks
 * close together the last one has its number. */
static void draw_marks(FILE *file, double epochs, const chart_mark_t *marks,
                       size_t marks_len)
{
    struct panel p = { .file = file, .epochs = epochs };

    if (marks_len == 0)
        return;
    fprintf(file,
            "<text x='%d' y='%d' text-anchor='end' font-size='11'>members:"
            "</text>\n",
            LEFT - 8, ACCURACY_TOP - 8);
    if (place_x(&p, marks[0].epoch) > LEFT + LABEL_WIDTH)
        draw_members(file, LEFT, "#333", marks[0].before);
    for (size_t i = 0; i < marks_len; i++) {
        const char *colour = marks[i].after < marks[i].before ? fewer_colour
                                                              : more_colour;
        double x = place_x(&p, marks[i].epoch);

        fprintf(file,
                "<path d='M%.1f %d V%d M%.1f %d V%d' stroke='%s' "
                "stroke-dasharray='2 3'/>\n",
                x, LOSS_TOP, LOSS_TOP + PANEL_HEIGHT, x, ACCURACY_TOP,
                ACCURACY_TOP + PANEL_HEIGHT, colour);
        if (i + 1 == marks_len ||
            place_x(&p, marks[i + 1].epoch) > x + LABEL_WIDTH)
            draw_members(file, x, colour, marks[i].after);
    }
}

int chart_write_svg(const char *path, const char *title, double goal,
                    const chart_row_t *rows, size_t rows_len,
                    const chart_mark_t *marks, size_t marks_len)
{
    FILE *file = fopen(path, "w");
    double epochs = rows_len > 0 ? fmax(rows[rows_len - 1].epoch, 1.0) : 1.0;
    int failed;

    if (!file)
        return -1;
    fprintf(file,
            "<svg xmlns='http://www.w3.org/2000/svg' width='%d' height='%d' "
            "viewBox='0 0 %d %d' font-family='sans-serif' font-size='13'>\n"
            "<style>.grid{stroke:#ddd}.axis{stroke:#333;fill:none}"
            ".curve{fill:none;stroke-width:2;stroke-linejoin:round}</style>\n"
            "<rect width='100%%' height='100%%' fill='white'/>\n"
            "<text x='%d' y='32' font-size='16'>%s</text>\n",
            WIDTH, HEIGHT, WIDTH, HEIGHT, LEFT, title);
    draw_loss(file, epochs, rows, rows_len);
    draw_accuracy(file, epochs, goal, rows, rows_len);
    draw_marks(file, epochs, marks, marks_len);
    fprintf(file,
            "<text x='%d' y='%d' text-anchor='middle'>epoch</text>\n</svg>\n",
            LEFT + (WIDTH - LEFT - RIGHT) / 2, HEIGHT - 20);
    failed = ferror(file);
    return fclose(file) != 0 || failed ? -1 : 0;
}
