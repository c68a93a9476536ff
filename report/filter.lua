-- What pandoc's Typst writer needs to know of a notebook: HTML tables, numbered captions, claims, links.

local anchors = {}
local minus = "−"

local function read_html(block)
  if block.format == "html" then
    return pandoc.read(block.text, "html+tex_math_dollars").blocks
  end
end

local function numeric(cell)
  local text = pandoc.utils.stringify(cell.contents)
  return text == "" or text == "NaN" or text:gsub(minus, "-"):match("^[-+]?[%d.,]+[%d.,%%eE±× +-]*$") ~= nil
end

-- Numbers to the right, words to the left, and a true minus sign.
local function align(tbl)
  for column, spec in ipairs(tbl.colspecs) do
    local all = true
    for _, body in ipairs(tbl.bodies) do
      for _, row in ipairs(body.body) do
        if row.cells[column] and not numeric(row.cells[column]) then all = false end
      end
    end
    tbl.colspecs[column] = { all and "AlignRight" or "AlignLeft", nil }
  end
  return tbl:walk({
    Cell = function(cell) cell.alignment = "AlignDefault"; return cell end,
    Str = function(str) if str.text:match("^-%d") then return pandoc.Str(minus .. str.text:sub(2)) end end,
  })
end

local function typst(text) return pandoc.RawBlock("typst", text) end

-- A div "captioned" holds a div "caption" and the figure or table itself.
local function captioned(div)
  if not div.classes:includes("captioned") then return nil end
  local caption = table.remove(div.content, 1).content
  local key = div.attributes
  local blocks = pandoc.Blocks({ typst(('#captioned("%s", "%s", %s, ['):format(key.kind, key.number, key.breaks)) })
  blocks:extend(caption)
  blocks:insert(typst("], ["))
  blocks:extend(div.content)
  blocks:insert(typst("])"))
  return blocks
end

local function is_claim(block)
  local first = block and block.t == "Para" and block.content[1]
  return first and first.t == "Str" and first.text == "✓"
end

local function begins_with_formula(block)
  local first = block and block.t == "Para" and block.content[1]
  return first and first.t == "Math" and first.mathtype == "DisplayMath"
end

-- Claims in a row become one compact list; a short line that announces a formula stays on the formula's page.
local function paragraphs(blocks)
  local result, inside = pandoc.Blocks({}), false
  for n, block in ipairs(blocks) do
    if is_claim(block) then
      local last = not is_claim(blocks[n + 1])
      block.content:remove(1)
      result:extend({ typst(inside and "[" or "#claims(["), block, typst(last and "])" or "],") })
      inside = not last
    elseif block.t == "Para" and begins_with_formula(blocks[n + 1]) and #pandoc.utils.stringify(block) < 250 then
      result:extend({ typst("#block(width: 100%, sticky: true)["), block, typst("]") })
    else
      result:insert(block)
    end
  end
  return result
end

-- pandoc sets \\lvert x \\rvert as two loose bars, \\left| x \\right| as a pair.
local function bars(math)
  local text, left = math.text:gsub("\\left%s*\\lvert", "\\lvert"):gsub("\\right%s*\\rvert", "\\rvert"):gsub("\\lvert", "\\left|")
  local text, right = text:gsub("\\rvert", "\\right|")
  if left == right and not text:find("\\big") then math.text = text end
  return math
end

-- TeX that was not recognised as a formula, for instance for a missing brace, would be printed as it stands.
local function no_tex(str)
  if str.text:find("%$%$") or str.text:find("\\%a") then error("not read as a formula: " .. str.text, 0) end
end

-- "0.9 ± 0.1" and "d = 10" are not torn apart at the end of a line.
local function unbroken(inlines)
  for n = 2, #inlines - 1 do
    if inlines[n].t == "Str" and (inlines[n].text == "±" or inlines[n].text == "=") then
      for _, beside in ipairs({ n - 1, n + 1 }) do
        if inlines[beside].t == "Space" then inlines[beside] = pandoc.Str("\u{a0}") end
      end
    end
  end
  return inlines
end

-- "1  Reconstruction": a wide space after the number, which the notebook brings.
local function heading(header)
  anchors[header.identifier] = true
  local number, space = header.content[1], header.content[2]
  if header.level == 1 and space and space.t == "Space" and pandoc.utils.stringify(number):match("^%d+$") then
    header.content[2] = pandoc.RawInline("typst", "#h(0.7em)")
  end
  return header
end

-- A link into the report keeps its target if there is one; a dead one would stop Typst.
local function link(element)
  local target = element.target
  if target:match("^%a+://") or target:match("^mailto:") then return nil end
  local chapter = target:match("([%w_-]+)%.ipynb")
  local anchor = chapter and "chapter-" .. chapter or target:match("^#(.+)$") or ""
  for _, id in ipairs({ anchor, anchor:lower() }) do
    if anchors[id] then
      element.target = "#" .. id
      return element
    end
  end
  return element.content
end

return {
  { RawBlock = read_html, RawInline = function(raw) if raw.text:match("^<br") then return pandoc.LineBreak() end end },
  { Table = align, Blocks = paragraphs, Header = heading, Math = bars, Str = no_tex },
  { Inlines = unbroken },
  { Div = captioned, Link = link },
}
